"""The overlay `slurm`: lab.js, run by Node.js with stand-ins for JupyterLab's modules and page, the hub, the clock.

The end-to-end story has a real JupyterLab; here minutes pass at once.
"""

import json
import subprocess
from typing import Any

import pytest

from tests.unit.oidc import NODE
from tests.unit.real_hub import ROOT

LAB = ROOT / "construct/overlays/slurm/python/barehub_slurm/lab.js"
HARNESS = """
const fs = require("fs");
const [page, modules, hub, moments] = JSON.parse(process.argv[2]);
const said = [], node = { style: {} };
let now = 1000000, next, tick;
Date.now = () => now;
globalThis.window = {};
globalThis.document = {
  getElementById: () => ({ textContent: JSON.stringify(page) }),
  createElement: () => node,
};
globalThis.setInterval = (call) => { tick = call; };
globalThis.fetch = async (url, options) => {
  said.push(`ask ${url} ${options.headers.Authorization}`);
  if (next === "away") throw new Error("away");
  return { ok: next !== "unknown", json: async () => ({ seconds: next }) };
};
const all = {
  "@jupyterlab/statusbar": { IStatusBar: "token" },
  "@lumino/widgets": { Widget: class {} },
  "@jupyterlab/apputils": { Notification: {
    warning: (text, more) => { said.push(text.replace(/ at .*?, in/, " at TIME, in")); return "id"; },
    dismiss: (id) => said.push(`dismiss ${id}`),
  } },
};
const shared = (one) => ({ "4.0.0": { loaded: 1, get: async () => () => all[one] } });
const scope = Object.fromEntries(modules.map((one) => [one, shared(one)]));
const settled = async () => { for (let turn = 0; turn < 20; turn++) await null; };
eval(fs.readFileSync(process.argv[1], "utf8"));
(async () => {
  const container = window._JUPYTERLAB["barehub-slurm"];
  container.init(scope);
  const plugin = (await container.get("./extension"))().default;
  next = hub[0];
  const items = [];
  plugin.activate({}, plugin.optional.length ? { registerStatusItem: (id) => items.push(id) } : null);
  await settled();
  const shown = [node.textContent || ""];
  for (const [place, minutes] of moments.entries()) {
    now += minutes * 60000;
    next = hub[place + 1];
    if (tick) await tick();
    shown.push(node.textContent || "");
  }
  console.log(JSON.stringify({ said, shown, items }));
})();
"""
PAGE = {"hubPrefix": "/x/hub/", "hubServerUser": "ada@b", "hubServerName": "gpu", "token": "s"}
MODULES = ["@jupyterlab/statusbar", "@lumino/widgets", "@jupyterlab/apputils"]
ASKED = "ask /x/hub/api/users/ada%40b/slurm-left/gpu token s"
WARNED = "The time of this server ends at TIME, in {} min. Save your work: what runs here ends with it."


def run(
    hub: list[object], moments: list[float], modules: list[str] = MODULES, page: dict[str, str] = PAGE
) -> dict[str, Any]:
    """What is said and shown if the hub answers these seconds, first at once, then after so many minutes each."""
    told = json.dumps([page, modules, hub, moments])
    done = subprocess.run(
        [NODE / "bin/node", "-e", HARNESS, LAB, told], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_there_are_two_warnings_and_each_has_just_been_asked_for() -> None:
    found = run([5400, None, 840, 240, 240], [10, 66, 10, 1])
    assert found["shown"] == ["1 h 30 min left", "1 h 20 min left", "14 min left", "4 min left", "3 min left"]
    assert found["said"] == [ASKED, ASKED, WARNED.format(14), ASKED, "dismiss id", WARNED.format(4)]
    assert found["items"] == ["barehub-slurm"]


def test_a_limit_that_was_extended_takes_the_warning_back() -> None:
    found = run([900, 7200], [3.5])
    assert found["said"] == [ASKED, WARNED.format(15), ASKED, "dismiss id"]
    assert found["shown"] == ["15 min left", "2 h left"]
    late = run([5400, 7200], [80])  # extended before there was a warning: nobody is told that time ends
    assert late["said"] == [ASKED, ASKED]


@pytest.mark.parametrize("answer", ["away", "unknown"])
def test_a_hub_that_does_not_answer_changes_nothing(answer: str) -> None:
    assert run([3600, answer], [31])["shown"] == ["1 h left", "29 min left"]
    assert run([answer, 3600], [4])["shown"] == ["", "1 h left"]


def test_without_a_limit_nothing_is_shown() -> None:
    assert run([None, None], [40]) == {"said": [ASKED, ASKED], "shown": ["", ""], "items": ["barehub-slurm"]}


def test_where_jupyterlab_has_less_nothing_fails() -> None:
    assert run([600], [], modules=[])["said"] == [ASKED]  # nothing to warn with
    without_bar = run([600], [], modules=["@jupyterlab/apputils"])  # as Notebook 7
    assert without_bar["said"] == [ASKED, WARNED.format(10)]
    assert run([600], [], page={})["said"] == []  # a JupyterLab that no hub has started
