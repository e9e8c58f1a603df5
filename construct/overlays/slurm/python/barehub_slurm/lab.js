// Shows in JupyterLab how much time the server's job has left, and warns before its end. The hub says it (left.py), so
// a limit that was changed meanwhile counts. JupyterLab 4 loads this as it loads any prebuilt extension (module
// federation), but no bundler has made it: what it needs of JupyterLab's own modules, it takes from those that are
// shared. Where one is missing, in another version perhaps, there is less to see; nothing fails.
(function () {
  const NAME = "barehub-slurm";
  const WARNINGS = [15, 5]; // minutes before the end
  const ASK = 30, ASK_SOON = 3; // minutes after which the hub is asked again; soon near the end, and without an answer
  const TICK = 20; // seconds
  let shared = {};

  async function load(name) {
    const versions = Object.values(shared[name] || {});
    const one = versions.find((version) => version.loaded) || versions[0];
    try {
      return one ? (await one.get())() : {};
    } catch {
      return {};
    }
  }

  const page = JSON.parse((document.getElementById("jupyter-config-data") || {}).textContent || "{}");

  // Returns the seconds that are left; undefined if the hub does not answer, null if there is no limit.
  async function ask() {
    const path = [page.hubServerUser || page.hubUser, "slurm-left", page.hubServerName || ""].map(encodeURIComponent);
    try {
      const answer = await fetch((page.hubHost || "") + page.hubPrefix + "api/users/" + path.join("/"), {
        headers: { Authorization: "token " + page.token },
        credentials: "omit",
      });
      return answer.ok ? (await answer.json()).seconds : undefined;
    } catch {
      return undefined;
    }
  }

  function spoken(minutes) {
    const hours = Math.floor(minutes / 60);
    return [hours ? hours + " h" : "", minutes % 60 || !hours ? (minutes % 60) + " min" : ""].join(" ").trim();
  }

  function follow(node, Notification) {
    let end = null, known = false, asked = 0, warned = Infinity, notice = "";
    const left = () => (end === null ? Infinity : (end - Date.now()) / 60000);
    const mark = () => Math.min(...WARNINGS.filter((one) => left() <= one));

    async function learn() {
      asked = Date.now();
      const seconds = await ask();
      known = seconds !== undefined;
      if (known) end = seconds === null ? null : Date.now() + seconds * 1000;
      if (left() <= WARNINGS[0]) return;
      warned = Infinity;
      if (notice) Notification.dismiss(notice);
    }

    function warn(minutes, at) {
      if (notice) Notification.dismiss(notice);
      const when = "The time of this server ends at " + at + ", in " + spoken(minutes) + ".";
      notice = Notification.warning(when + " Save your work: what runs here ends with it.", { autoClose: false });
    }

    async function tick() {
      // What is said in a warning has just been asked.
      const pause = known && left() > 2 * WARNINGS[0] ? ASK : ASK_SOON;
      if (mark() < warned || Date.now() - asked > pause * 60000) await learn();
      const minutes = Math.max(0, Math.round(left()));
      const at = end && new Date(end).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      node.hidden = end === null;
      node.textContent = end === null ? "" : spoken(minutes) + " left";
      node.title = end === null ? "" : "The job of this server ends at " + at;
      node.style.fontWeight = left() <= WARNINGS[0] ? "bold" : "";
      if (mark() < warned) {
        warned = mark();
        if (Notification) warn(minutes, at);
      }
    }

    tick();
    setInterval(tick, TICK * 1000);
  }

  async function plugin() {
    const { IStatusBar } = await load("@jupyterlab/statusbar");
    const { Notification } = await load("@jupyterlab/apputils");
    const { Widget } = await load("@lumino/widgets");
    return {
      id: NAME + ":time-left",
      description: "How much time the server's Slurm job has left",
      autoStart: true,
      optional: IStatusBar ? [IStatusBar] : [],
      activate: (app, bar) => {
        const node = document.createElement("span");
        node.id = "slurm-time-left";
        node.className = "jp-StatusBar-TextItem";
        if (bar && Widget) bar.registerStatusItem(NAME, { item: new Widget({ node }), align: "right", rank: 0 });
        if (page.hubPrefix && page.token) follow(node, Notification);
      },
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (scope) => { shared = scope; },
    get: async () => { const one = await plugin(); return () => ({ default: one, __esModule: true }); },
  };
})();
