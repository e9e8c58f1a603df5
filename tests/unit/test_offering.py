"""barehub.offering: the environments that users choose from, in the form and at the start of a server."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from barehub import offering
from barehub.accounts import current_user
from barehub.environments import SILENT, Found, hubs_version
from barehub.offering import Lookout, NotOfferedError, OffersEnvironments, look
from jupyterhub.spawner import LocalProcessSpawner
from traitlets import TraitError
from traitlets.config import Config, Configurable

from tests.unit.installations import interpreter
from tests.unit.test_environments import make_environment

OLD = "1.5.0"


@pytest.fixture(autouse=True)
def _own_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -I` does not see this tree."""
    code = "import runpy\nsys.argv.insert(0, '')\nrunpy.run_module('barehub.environments', run_name='__main__')"
    monkeypatch.setattr(sys, "executable", str(interpreter(tmp_path / "python", code)))


class Spawner(OffersEnvironments, Configurable):
    """What the form and the start of a server use of JupyterHub's spawner."""

    cmd = ("jupyterhub-singleuser",)

    def __init__(self, last: str = "", groups: dict[str, str] | None = None, **traits: Any) -> None:
        super().__init__(**traits)
        self.user_options = {"environment": last} if last else {}
        self.groups, self.lookout = groups or {}, Lookout()

    async def apply_group_overrides(self) -> None:
        self.environments |= self.groups


class OfJobs(Spawner):
    loads_modules = True


def shown(spawner: Spawner) -> tuple[list[tuple[str, str, str]], str]:
    """The options of the form, as value, whether it is selected, and text; and the notice."""
    text, notice = asyncio.run(spawner.environment_field())
    return re.findall(r'<option value="([^"]*)"( selected)?>([^<]*)</option>', text), notice


def test_a_choice_is_shown_if_there_is_one(tmp_path: Path) -> None:
    lab = str(make_environment(tmp_path / "lab", hubs_version()))
    assert shown(Spawner(environments={"Lab": lab})) == ([], "")
    assert shown(Spawner()) == ([], "")
    options, _ = shown(Spawner(environments={"Lab": lab, "Other": "/none"}, last="Other"))
    assert options == [("Lab", "", "Lab"), ("Other", " selected", "Other")]


def test_a_jupyterhub_that_does_not_fit_is_told(tmp_path: Path) -> None:
    old, new = str(make_environment(tmp_path / "old", OLD)), str(make_environment(tmp_path / "new", "99.0.0"))
    too_old = f"too old for this hub (jupyterhub {OLD})"
    options, notice = shown(Spawner(environments={"Old": old, "New": new}))
    assert options == [("Old", "", f"Old: {too_old}"), ("New", "", "New: too new for this hub (jupyterhub 99.0.0)")]
    assert notice == ""
    _, notice = shown(Spawner(environments={"Old": old}))
    assert notice == f"The environment is {too_old}."


def test_labels_are_text() -> None:
    options, _ = shown(Spawner(environments={'<b>"&': "/a", "B": "/b"}, last='<b>"&'))
    assert options[0] == ("&lt;b&gt;&quot;&amp;", " selected", "&lt;b&gt;&quot;&amp;")


def test_a_choice_that_is_gone_is_forgotten() -> None:
    options, _ = shown(Spawner(environments={"A": "/a", "B": "/b"}, last="C"))
    assert [selected for _, selected, _ in options] == ["", ""]


def test_what_a_group_is_offered_is_in_the_form_of_its_members() -> None:
    spawner = Spawner(environments={"Lab": "/lab"}, groups={"Group": "/group"})
    assert [label for label, *_ in shown(spawner)[0]] == ["Lab", "Group"]


@pytest.mark.parametrize("label", ["C", "/a", ["A"], {"A": 1}, 1, "A\n"])
def test_what_is_not_offered_is_refused(label: object) -> None:
    spawner = Spawner(environments={"A": "/a", "B": "/b"})
    with pytest.raises(NotOfferedError, match=r"(?s)There is no environment .* for you; there is A, B") as refused:
        spawner.chosen({"environment": label})
    assert refused.value.jupyterhub_message.startswith("Your server was not started. There is no environment ")


def test_the_first_is_the_default() -> None:
    spawner = OfJobs(environments={"A": "/a", "B": "module load b"})
    assert spawner.chosen({}) == ("A", "/a")
    assert spawner.chosen({"environment": ""}) == ("A", "/a")
    assert spawner.chosen({"environment": "B"}) == ("B", "module load b")
    assert Spawner().chosen({"environment": "B"}) == ("", "")  # the option is one of the site's own
    assert Spawner(environments={"A": "/a"}).chosen({"environment": "gone"}) == ("A", "/a")


@pytest.mark.parametrize("wrong", ["lab", "module load lab", "", "./lab", 5])
def test_a_mistake_in_the_configuration_is_refused_with_its_trait(wrong: object) -> None:
    with pytest.raises(TraitError, match="'environments' trait"):
        Spawner(config=Config({"Spawner": {"environments": {"Lab": wrong}}}))


def test_modules_are_for_jobs() -> None:
    assert OfJobs(environments={"M": "module load jupyter/4.2"}).environments
    with pytest.raises(TraitError, match=r"an absolute path, or `module load NAME\.\.\.`$"):
        OfJobs(environments={"M": "module load"})


def test_nothing_of_jupyterhubs_spawner_is_replaced() -> None:
    ours = {name for name in vars(OffersEnvironments) if not name.startswith("_")}
    assert {name for name in ours if hasattr(LocalProcessSpawner, name)} == set()


def test_one_look_serves_every_form_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_environment(tmp_path / "lab", "6.1.1")
    lookout = Lookout()

    async def looked() -> set[str]:
        found = await asyncio.gather(*(lookout.look([str(lab)]) for _ in range(5)))
        return {one[str(lab)].jupyterhub for one in found}

    async def story() -> None:
        assert await looked() == {"6.1.1"}
        make_environment(lab, "5.0.0", "python3.11")
        assert await looked() == {"6.1.1"}
        monkeypatch.setattr(offering, "AGE", 0)
        assert await looked() == {""}  # two versions

    asyncio.run(story())


def test_it_serves_groups_with_different_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, other = (str(make_environment(tmp_path / name, version)) for name, version in (("a", "6.1.1"), ("b", "5.0.0")))
    lookout = Lookout()

    async def story() -> None:
        await lookout.look([lab])
        await lookout.look([other])
        monkeypatch.setattr(offering, "look", None)  # nobody looks again
        assert (await lookout.look([lab]))[lab].jupyterhub == "6.1.1"
        assert (await lookout.look([other]))[other].jupyterhub == "5.0.0"

    asyncio.run(story())


def test_a_file_system_that_is_away_holds_up_no_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(offering, "PATIENCE", 0.2)
    assert asyncio.run(look(["/lab"])) == {"/lab": SILENT}


def test_a_user_looks_as_that_user() -> None:
    user = "daemon" if os.geteuid() == 0 else current_user()
    code = """import json, os, pwd
print(json.dumps({'/x': {'real': '/x-1', 'missing': pwd.getpwuid(os.getuid()).pw_name}}))"""
    place = Path(f"/tmp/barehub-{os.getpid()}-looks")
    place.mkdir(mode=0o755)
    try:
        program = place / "python"
        program.write_text(f"#!/usr/bin/env -S /usr/bin/python3 -I\n{code}\n")
        program.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", str(program))
            assert asyncio.run(look(["/x"], user))["/x"].missing == user
            program.chmod(0o744)  # a hub that is closed to its users, and knows nevertheless where a link leads
            if os.geteuid() == 0:
                assert asyncio.run(look(["/x"], user)) == {"/x": Found("/x-1")}
            program.chmod(0o644)
            assert asyncio.run(look(["/x"], user)) == {"/x": SILENT}
            with pytest.raises(KeyError, match="getpwnam"):
                asyncio.run(look(["/x"], "nobody-here"))
    finally:
        program.unlink()
        place.rmdir()
