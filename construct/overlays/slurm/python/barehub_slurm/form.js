// Each field follows what is chosen in the others: which choices there are, the most of each, and whether it is there.
// Without this script the form has all choices, and the hub checks what is sent.
(function () {
  const get = (name) => document.getElementById("slurm-" + name);
  const partition = get("partition");
  if (!partition) return;
  const numbers = ["cores", "memory", "gpus", "hours"].map(get).filter(Boolean);
  const texts = {};
  for (const name of ["account", "qos", "reservation", "kind"]) if (get(name)) texts[name] = [...get(name).options];
  for (const control of [...numbers, ...Object.keys(texts).map(get)]) control.dataset.wanted = control.value;
  const least = (one, other) => (other === undefined || other === null ? one : Math.min(one, other));

  function show(name, shown) {
    const row = get(name + "-row");
    row.hidden = !shown;
    for (const control of row.querySelectorAll("input, select")) control.disabled = !shown;
  }

  // Leaves those choices that are possible, and returns the one that counts.
  function choices(name, possible) {
    const select = get(name);
    if (!select) return possible.includes("") ? "" : possible[0] || "";
    const before = select.dataset.wanted;
    select.replaceChildren(...texts[name].filter((option) => possible.includes(option.value)));
    const first = select.options[0]; // none is there if a reservation is needed, and all are other accounts'
    if (first) select.value = possible.includes(before) ? before : first.value;
    show(name, possible.length > 1);
    return select.value || "";
  }

  // What was typed comes back where it is possible again. The field that has just been changed is left as it is: the
  // browser says what the most is.
  function limit(box, most, changed) {
    box.max = most === Infinity ? "" : most;
    if (box !== changed) box.value = Number(box.dataset.wanted) > most ? most : box.dataset.wanted;
    const unit = box.dataset.unit ? " " + box.dataset.unit : "";
    get(box.name + "-help").textContent = most === Infinity ? "" : "at most " + most + unit;
  }

  function update(changed) {
    const option = partition.selectedOptions[0];
    const offer = JSON.parse((option && option.dataset.offer) || "null");
    if (!offer) return;
    get("partition-help").textContent = offer.free;
    const account = choices("account", Object.keys(offer.accounts));
    const allowed = offer.accounts[account] || { "": {} };
    const caps = allowed[choices("qos", Object.keys(allowed))] || {};
    const open = Object.entries(offer.reservations).filter(([, accounts]) => !accounts || accounts.includes(account));
    choices("reservation", [...(offer.reserved ? [] : [""]), ...open.map(([name]) => name)]);
    const gpus = get("gpus");
    const kinds = [...new Set(offer.shapes.flatMap((shape) => Object.keys(shape.kinds)))];
    const wanted = gpus && Number(gpus.dataset.wanted) > 0;
    const kind = wanted ? choices("kind", kinds.length > 1 ? ["", ...kinds] : [""]) : "";
    if (!wanted && get("kind")) show("kind", false);
    const shapes = offer.shapes.filter((shape) => !kind || shape.kinds[kind]).map((shape) => ({
      cores: least(shape.cores, caps.cores),
      memory: least(shape.memory, caps.memory),
      gpus: kind === "shard" ? shape.kinds.shard : least(kind ? shape.kinds[kind] : shape.gpus, caps.gpus),
    }));
    for (const box of numbers) {
      const most = box.name === "hours"
        ? least(least(Infinity, JSON.parse(option.dataset.most).hours), caps.hours)
        : Math.max(0, ...shapes.map((shape) => shape[box.name]));
      show(box.name, most > 0);
      if (most > 0) limit(box, most, changed);
    }
    fits(offer, shapes);
  }

  // What is asked for together has to be on one node.
  function fits(offer, shapes) {
    const asked = numbers.filter((box) => box.name !== "hours" && !box.disabled && box.value !== "");
    const fit = shapes.some((shape) => asked.every((box) => Number(box.value) <= shape[box.name]));
    const text = fit ? "" : "No node has all that at once: " + offer.text;
    get("fit").className = fit ? "" : "alert alert-warning";
    if (get("fit").textContent !== text) get("fit").textContent = text;
    for (const box of asked) box.setCustomValidity(text);
  }

  // Asked when the user presses the button, since it is work for slurmctld.
  function estimate(when) {
    const shorter = get("shorter");
    const say = (text, hours) => {
      get("start").textContent = text;
      shorter.hidden = !hours || !get("hours");
      shorter.value = "As long as fits: " + hours + " h";
      shorter.onclick = () => {
        get("hours").value = hours;
        get("hours").dispatchEvent(new Event("change"));
        say("");
      };
    };
    when.hidden = false;
    when.addEventListener("click", async () => {
      when.disabled = true;
      say("Asking Slurm ...");
      try {
        const hub = window.jhdata;
        const user = encodeURIComponent(when.dataset.user);
        const answer = await fetch(hub.base_url + "api/users/" + user + "/slurm-start", {
          method: "POST",
          headers: { "Content-Type": "application/json", "X-XSRFToken": hub.xsrf_token },
          body: JSON.stringify(Object.fromEntries(new FormData(partition.form))),
        });
        const said = await answer.json();
        say(said.text || said.message, said.hours);
      } catch {
        say("The hub does not answer at present.");
      }
      when.disabled = false;
    });
    partition.form.addEventListener("change", () => { if (!when.disabled) say(""); });
  }

  if (get("when")) estimate(get("when"));
  for (const control of [partition, ...numbers, ...Object.keys(texts).map(get)]) {
    control.addEventListener("change", () => { control.dataset.wanted = control.value; update(control); });
  }
  update();
})();
