"""The form in which a user asks for a server, as HTML for JupyterHub's page: form.html.jinja and form.js."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from barehub.offering import FIELD
from jinja2 import Environment, Template

from barehub_slurm.gpus import SHARD, spoken_gpus
from barehub_slurm.nodes import Free
from barehub_slurm.options import FIELDS, LABELS, Offer, RefusedError, kinds
from barehub_slurm.partitions import Partition

SUGGESTED = "suggested-"  # hidden fields with what the form suggests
HERE = files(__package__)


@cache
def template() -> Template:
    return Environment(autoescape=True).from_string((HERE / "form.html.jinja").read_text())


def form(
    offer: Offer,
    notices: Sequence[str],
    environments: str = "",
    *,
    values: Mapping[str, Any] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    free: Mapping[str, Free] | None = None,
    next_page: str = "",
    user: str = "",
) -> str:
    """Return the form's HTML, with notices above; `environments` is the field for these, if there is one.

    `values` is what it is filled in with, `free` what is free now by partition, `next_page` what presets lead on to,
    `user` who may ask when a server would start.
    """
    filled = {name: value for name, value in (values or {}).items() if name in offer.labels and value is not None}
    more = {"next": next_page} if next_page else {}
    return template().render(
        notices=notices,
        user=user,
        presets=[(label, link({**preset, **more})) for label, preset in (presets or {}).items()],
        fields=fields(offer, filled, free or {}, environments),
        script=(HERE / "form.js").read_text(),
    )


def fields(
    offer: Offer, values: Mapping[str, Any], free: Mapping[str, Free], environments: str = ""
) -> list[dict[str, Any]]:
    """Return the fields in their order. That of the partition is there if it is hidden, too: others follow it."""
    made: Mapping[str, Callable[[], dict[str, Any]]] = {
        FIELD: lambda: {"html": environments} if environments else {},
        "partition": lambda: partition_field(offer, values, free),
        "account": lambda: choice_field(account_choices(offer)),
        "qos": lambda: choice_field(qos_choices(offer)),
        "reservation": lambda: choice_field(reservation_choices(offer)),
        "kind": lambda: half(choice_field(kind_choices(offer))),
        "directory": lambda: {"help": "Where the server starts: a path below your home, or from the root."},
    }
    suggested = suggestions(offer, values)
    found = []
    for name in dict.fromkeys([*offer.labels, "partition"]):
        one = number_field(offer, name, suggested) if name in FIELDS else made[name]()
        if one:
            shown = values.get(name, one.get("value", ""))
            found.append(one | {"name": name, "label": label(offer, name), "value": str(shown).strip()})
    return found


def label(offer: Offer, name: str) -> str:
    text = offer.labels.get(name) or LABELS[name] or ""
    return f"{text} ({unit})" if name in FIELDS and (unit := FIELDS[name].unit) else text


def partition_field(offer: Offer, values: Mapping[str, Any], free: Mapping[str, Free]) -> dict[str, Any]:
    choices = []
    for name, partition in offer.partitions.items():
        most = {one: None if value == math.inf else value for one, value in offer.most(partition).items()}
        data = {"most": most, "offer": details(offer, partition, is_free(free.get(name)))}
        down = not offer.usable(partition)
        choices.append({"value": name, "text": offer.describe(partition), "disabled": down, "data": data})
    known = [f"{name} {text}" for name in offer.partitions if (text := is_free(free.get(name)))]
    return {
        "choices": choices,
        "value": offer.default_partition,
        "hidden": "partition" not in offer.labels,
        "help": f"Free now: {'; '.join(known)}" if known else "",
    }


def is_free(free: Free | None) -> str:
    """Return what is free of a partition now, in words; empty if that is not known."""
    if not free:
        return ""
    gpus = {kind: count for kind, count in free.free_gpus.items() if free.gpus.get(kind)}
    return f"{free.free_cores} of {free.cores} cores" + (f", {spoken_gpus(gpus)}" if gpus else "")


def details(offer: Offer, partition: Partition, free: str) -> dict[str, Any]:
    """Return what form.js needs of a partition: nodes, and account -> QoS -> the most of each."""
    access, limit = offer.access, offer.access.limit(partition.name)
    shapes = zip(offer.shapes(partition), partition.shapes, strict=True)
    # Of what the site hides, the default counts.
    accounts = dict(list(access.choices(partition.name).items())[: None if "account" in offer.labels else 1])
    qos = slice(None if "qos" in offer.labels else 1)
    return {
        "free": f"Free now: {free}" if free else "",
        "text": offer.describe(partition),
        "reserved": limit.reserved,
        "shapes": [most | {"kinds": counts(offer, shape.kinds)} for most, shape in shapes],
        "accounts": {
            account: {name: access.standing.caps(one, name, limit) for name in access.qos(one)[qos]}
            for account, one in accounts.items()
        },
        "reservations": {
            one.name: [name for name in accounts if one.open_to(access.standing.lineage(name))] if accounts else None
            for one in access.reservations_in(partition.name)
        },
    }


def counts(offer: Offer, found: Mapping[str, int]) -> dict[str, float]:
    return {kind: offer.limit("gpus", count) for kind, count in found.items() if kind and count}


def choice_field(choices: Mapping[str, str]) -> dict[str, Any]:
    """Return a field for a choice of value -> text; nothing if there is none to make."""
    if len(choices) < 2:
        return {}
    made = [{"value": value, "text": text} for value, text in choices.items()]
    return {"choices": made, "value": made[0]["value"]}


def half(field: dict[str, Any]) -> dict[str, Any]:
    """Return the field as one that has room beside another."""
    return field and field | {"half": True}


def account_choices(offer: Offer) -> dict[str, str]:
    first = offer.access.choices(offer.default_partition)
    found = [*first, *(account for name in offer.partitions for account in offer.access.choices(name))]
    return {name: name for name in found}


def qos_choices(offer: Offer) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in offer.partitions:
        for one in offer.access.choices(name).values():
            found |= {qos: qos or "Default" for qos in offer.access.qos(one)}
    return found


def reservation_choices(offer: Offer) -> dict[str, str]:
    found = [one for name in offer.partitions for one in offer.access.reservations_in(name)]
    return {"": "None"} | {one.name: one.label for one in found} if found else {}


def kind_choices(offer: Offer) -> dict[str, str]:
    found = [kinds(partition) for partition in offer.partitions.values()]
    names = {kind: "Share of a GPU" if kind == SHARD else kind for one in found for kind in one}
    return {"": "Any"} | names if any(len(one) > 1 for one in found) else {}


def number_field(offer: Offer, name: str, suggested: Mapping[str, str]) -> dict[str, Any]:
    """Return the field of a number; nothing if there are no GPUs, or if Slurm does not manage memory."""
    usable = [partition for partition in offer.partitions.values() if offer.usable(partition)]
    most = max((offer.most(partition)[name] for partition in usable), default=0)
    if name == "gpus":
        each = [counts(offer, shape.kinds) for partition in usable for shape in partition.shapes]
        most = max([most, *(count for one in each for count in one.values())])
    if name in ("gpus", "memory") and not most:
        return {}
    known = FIELDS[name]
    value = suggested.get(name, "0")
    return {
        "number": True,
        "half": True,
        "unit": known.unit,
        "value": value,
        "suggested": value,
        "least": f"{known.least:g}",
        "step": "1" if known.whole else "any",
        "most": "" if most == math.inf else f"{most:g}",
    }


def suggestions(offer: Offer, values: Mapping[str, Any]) -> dict[str, str]:
    """Return what a request that says no numbers gets."""
    try:
        request = offer.check({name: value for name, value in values.items() if name not in FIELDS})
    except RefusedError:
        return {}
    hours = math.floor(request.minutes / 0.6) / 100
    found = {"cores": request.cores, "memory": request.memory / 1024, "gpus": request.gpus, "hours": hours}
    return {name: f"{value:g}" for name, value in found.items()}


def link(options: Mapping[str, Any]) -> str:
    """Return a link to the form that fills it in, as JupyterHub spells options in links."""
    return "?" + urlencode({name if name == "next" else f"opt-{name}": value for name, value in options.items()})


def from_form(data: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the options in a submitted form, or in a link to it.

    A field that still has what the form suggested asks for nothing, since the default differs in a smaller partition.
    """
    sent = {name: values[0].strip() for name, values in data.items() if values}
    fields = {name: sent[name] for name in LABELS if sent.get(name)}
    return {name: value for name, value in fields.items() if value != sent.get(f"{SUGGESTED}{name}")}
