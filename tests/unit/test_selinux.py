"""barehub.selinux: what is labelled and copied, by what matchpathcon and semanage of Enterprise Linux say."""

from pathlib import Path

import pytest
from barehub import selinux, systemd
from barehub.layout import Layout
from barehub.lifecycle.releases import switch
from barehub.settings import Installation

from tests.unit.installations import ME, fake_command, make_release

# matchpathcon -n of EL 9's targeted policy for .../bin/python
IN_OPT = "system_u:object_r:bin_t:s0"
IN_SRV = "system_u:object_r:var_t:s0"


class Policy:
    """The commands of a system with SELinux, and how they were called."""

    def __init__(self, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str) -> None:
        self.layout, self.bin, self.monkeypatch = layout, tmp_path / "bin", monkeypatch
        self.enforce = layout.root / "sys/fs/selinux/enforce"
        self.enforce.parent.mkdir(parents=True)
        self.enforce.write_text("1")
        self.matchpathcon = self.command("matchpathcon", f"echo {context}")
        self.restorecon = self.command("restorecon", "")
        self.said: list[str] = []

    def command(self, name: str, script: str) -> Path:
        return fake_command(self.bin, name, script, self.monkeypatch)

    @property
    def relabelled(self) -> str:
        """restorecon's words: not where other accounts may replace what it looks at by a link."""
        theirs = " ".join(f"-e {self.layout.base}/state/{name}" for name in ("hub", "rules", "acme"))
        return f"-RF {theirs} {self.layout.base}\n"

    def label(self) -> str:
        selinux.label_files(Installation(self.layout, ME), self.said.append)
        return "\n".join(self.said)


@pytest.fixture
def active(layout: Layout) -> Layout:
    make_release(layout, "2026.11.24")
    switch(layout, "2026.11.24")
    return layout


@pytest.mark.parametrize("context", [IN_OPT, "", "<<none>>"])
def test_a_base_that_the_policy_knows_is_labelled(
    active: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: str
) -> None:
    policy = Policy(active, tmp_path, monkeypatch, f"'{context}'")
    semanage = policy.command("semanage", "")
    assert policy.label() == ""
    assert policy.restorecon.read_text() == policy.relabelled
    assert policy.matchpathcon.read_text() == f"-n {active.base}/releases/2026.11.24/bin/python\n"
    assert semanage.read_text() == ""


def test_a_base_elsewhere_is_made_like_one_in_opt(
    active: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(active, tmp_path, monkeypatch, IN_SRV)
    semanage = policy.command("semanage", "")
    assert policy.label() == f"told SELinux to treat {active.base} like /opt/barehub"
    selinux.forget_files(Installation(active, ME))
    assert semanage.read_text().splitlines() == [
        f"fcontext --add --equal /opt/barehub {active.base}",
        f"fcontext --delete --equal /opt/barehub {active.base}",
    ]
    assert policy.restorecon.read_text() == policy.relabelled


@pytest.mark.parametrize("semanage", [None, "echo ValueError: SELinux policy is not managed >&2; exit 1"])
def test_what_cannot_be_done_is_said_with_the_command(
    active: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, semanage: str | None
) -> None:
    policy = Policy(active, tmp_path, monkeypatch, IN_SRV)
    if semanage:
        policy.command("semanage", semanage)
    else:
        monkeypatch.setattr(selinux.shutil, "which", lambda name: None)
    said = policy.label()
    assert said.startswith(f"warning: SELinux does not let systemd run programs of {active.base}")
    assert f"semanage fcontext --add --equal /opt/barehub {active.base}" in said
    assert ("not managed" in said) == bool(semanage)


def test_units_are_copied_where_it_is_enforcing(
    active: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(active, tmp_path, monkeypatch, IN_OPT)
    assert systemd.reason_to_copy(active) == "SELinux is enforcing"
    policy.enforce.write_text("0")
    assert systemd.reason_to_copy(active) == ""


def test_nothing_is_done_where_there_is_none(active: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(active, tmp_path, monkeypatch, IN_SRV)
    policy.enforce.unlink()
    assert policy.label() == ""
    assert policy.restorecon.read_text() == policy.matchpathcon.read_text() == ""
