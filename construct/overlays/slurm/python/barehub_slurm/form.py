"""The form in which a user asks for a server, as HTML for JupyterHub's page."""

import json
import math
from collections.abc import Mapping
from html import escape

from barehub.offering import FIELD

from barehub_slurm.options import FIELDS, Offer, RefusedError
from barehub_slurm.partitions import Partition

SUGGESTED = "suggested-"  # hidden fields with what the form suggests

# What the form shows can be sent: the limits of each field are those of the partition that is chosen.
SCRIPT = """<script>
(function () {
  const partition = document.getElementById("slurm-partition");
  function limit() {
    const chosen = partition.selectedOptions[0];
    for (const [name, most] of Object.entries(JSON.parse((chosen && chosen.dataset.most) || "{}"))) {
      const box = document.getElementById("slurm-" + name);
      if (!box) continue;
      box.disabled = most === 0;
      if (box.disabled) continue;
      if (most === null) { box.removeAttribute("max"); continue; }
      box.max = most;
      if (Number(box.value) > most) box.value = most;
    }
  }
  partition.addEventListener("change", limit);
  limit();
})();
</script>"""


def form(offer: Offer, notices: list[str], environments: str = "") -> str:
    """Return the form's HTML, with notices above, and first the field for the environment, if there is one."""
    rows = [f'<p class="alert alert-warning" id="slurm-notice">{escape("  ".join(notices))}</p>'] if notices else []
    choices = [option(offer, partition) for partition in offer.partitions.values()]
    rows.append(environments)
    rows.append(row("partition", "Partition", f'<select class="form-select" {named("partition")}>', choices))
    usable = [offer.most(partition) for partition in offer.partitions.values() if offer.usable(partition)]
    suggested = suggestions(offer)
    for field, (label, unit, whole, *_) in FIELDS.items():
        most = max((one[field] for one in usable), default=0)
        if field in ("gpus", "memory") and not most:  # there are none, or Slurm does not manage it
            continue
        value = suggested.get(field, "0")
        least = "0" if field == "gpus" else "1" if field == "cores" else "0.01"
        limit = "" if most == math.inf else f' max="{most:g}"'
        box = f'<input class="form-control" type="number" {named(field)} value="{value}" min="{least}"'
        control = f'{box} step="{"1" if whole else "any"}"{limit}>'
        hidden = f'<input type="hidden" name="{SUGGESTED}{field}" value="{value}">'
        rows.append(row(field, f"{label} ({unit})" if unit else label, control + hidden))
    return "\n".join([*rows, SCRIPT])


def option(offer: Offer, partition: Partition) -> str:
    chosen = " selected" if partition.name == offer.default_partition else ""
    disabled = "" if offer.usable(partition) else " disabled"
    most = {name: None if value == math.inf else value for name, value in offer.most(partition).items()}
    data = escape(json.dumps(most), quote=True)
    value = escape(partition.name, quote=True)
    return f'<option value="{value}"{chosen}{disabled} data-most="{data}">{escape(offer.describe(partition))}</option>'


def suggestions(offer: Offer) -> dict[str, str]:
    """Return what a request that says nothing gets in the partition that is preselected."""
    try:
        request = offer.check({})
    except RefusedError:
        return {}
    hours = math.floor(request.minutes / 0.6) / 100
    found = {"cores": request.cores, "memory": request.memory / 1024, "gpus": request.gpus, "hours": hours}
    return {name: f"{value:g}" for name, value in found.items()}


def named(field: str) -> str:
    return f'name="{field}" id="slurm-{field}"'


def row(field: str, label: str, control: str, choices: list[str] | None = None) -> str:
    inside = control if choices is None else "\n".join([control, *choices, "</select>"])
    return f'<div class="mb-3"><label class="form-label" for="slurm-{field}">{escape(label)}</label>\n{inside}</div>'


def from_form(data: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the options in a submitted form.

    A field that still has what the form suggested asks for nothing, since the default differs in a smaller partition.
    """
    sent = {name: values[0].strip() for name, values in data.items() if values}
    fields = {name: sent[name] for name in (FIELD, "partition", *FIELDS) if sent.get(name)}
    return {name: value for name, value in fields.items() if value != sent.get(f"{SUGGESTED}{name}")}
