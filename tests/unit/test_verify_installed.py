"""`barehub verify`: what has changed in an installed release is named, and nothing else."""

import base64
import gzip
import hashlib
import importlib.util
import json
import marshal
import os
import py_compile
import shutil
from pathlib import Path

import pytest
from barehub import cli, systemd
from barehub.differences import BusyError, is_compiled_from, opened
from barehub.errors import Exit
from barehub.layout import Layout
from barehub.manifest import PLACEHOLDER
from barehub.process import call_as

from tests.unit.installations import NEW
from tests.unit.installers import give_by_acl
from tests.unit.releases import DEMO, MODULE, SITE, found, make_verifiable, record, verified, write_receipt

LATE = f"{SITE}/demo/late.py"


def cached(path: str) -> str:
    return importlib.util.cache_from_source(path)


@pytest.fixture
def release(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    return make_verifiable(layout, monkeypatch)


def test_what_was_installed_is_what_was_released(release: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """With the units that the hooks have written, and whatever bytecode Python has made and removed."""
    assert cli.main(["verify"]) == 0
    said = capsys.readouterr().out
    assert "files are as they were released" in said
    assert "signature: not checked, since " in said
    for one in (cached(LATE), cached(MODULE)):
        py_compile.compile(str(release.prefix / MODULE.replace("__init__.py", Path(one).name.split(".")[0] + ".py")))
    py_compile.compile(str(release.prefix / MODULE), optimize=1)
    os.utime(release.prefix / MODULE)
    (release.prefix / cached(LATE)).unlink()
    (release.prefix / "share/empty").mkdir()
    assert found(release) == (0, set())


def test_each_change_is_named(release: Layout) -> None:
    prefix = release.prefix
    (prefix / MODULE).write_text("def answer():\n    return 43\n")
    (prefix / "bin/tool").chmod(0o644)
    (prefix / "bin/alias").unlink()
    (prefix / "bin/alias").symlink_to("/bin/sh")
    (prefix / f"{SITE}/barehub/lifecycle/rollback.py").unlink()
    (prefix / f"{SITE}/sitecustomize.py").touch()
    (prefix / f"{SITE}/late.pth").symlink_to("/tmp/late.pth")
    (prefix / "pyvenv.cfg").write_text("home = /tmp\n")
    (prefix / f"{SITE}/bad\x1b[2Jname").touch()
    unit = prefix / "systemd/barehub-hub.service"
    unit.write_text(unit.read_text() + "Environment=LD_PRELOAD=/tmp/x.so\n")
    code, wrong = found(release)
    assert code == Exit.INTEGRITY == 5
    assert wrong == {
        ("modified", MODULE),
        ("modified", "bin/tool"),
        ("modified", "bin/alias"),
        ("missing", f"{SITE}/barehub/lifecycle/rollback.py"),
        ("extra", f"{SITE}/sitecustomize.py"),
        ("extra", f"{SITE}/late.pth"),
        ("extra", "pyvenv.cfg"),
        ("extra", f"{SITE}/bad\\x1b[2Jname"),
        ("modified", "systemd/barehub-hub.service"),
    }
    assert any("bin/tool: cannot be run" in line for line in verified(release)[1])


def test_bytecode_has_to_be_of_the_module_beside_it(release: Layout) -> None:
    """Python runs it in the module's place, whatever the module says."""
    prefix, other = release.prefix, release.base / "other.py"
    late, packaged = prefix / cached(LATE), prefix / cached(MODULE)
    for evil in ("late = {1, 3}\n", "late = {1, 2}\nimport os\n", "late = {1, 2.0}\n", "def late(): return 1\n"):
        other.write_text(evil)
        code = compile(evil, str(prefix / LATE), "exec")
        for head in (late.read_bytes()[:16], late.read_bytes()[:4] + bytes(12)):
            late.write_bytes(head + marshal.dumps(code))
            assert found(release) == (Exit.INTEGRITY, {("modified", cached(LATE))})
    py_compile.compile(str(prefix / LATE))
    for damaged in (
        b"",
        late.read_bytes()[:20],
        late.read_bytes()[:16] + b"i\0\0\0\0",
        bytes(3) + late.read_bytes()[3:],
    ):
        packaged.write_bytes(damaged)
        late.write_bytes(damaged)
        assert found(release) == (Exit.INTEGRITY, {("modified", cached(LATE)), ("modified", cached(MODULE))})
    for path in (LATE, MODULE):
        py_compile.compile(str(prefix / path))
    for path in (
        f"{SITE}/demo/ghost.pyc",
        cached(f"{SITE}/demo/ghost.py"),
        f"{SITE}/demo/__pycache__/late.cpython-39.pyc",
    ):
        late.replace(prefix / path)
        assert found(release) == (Exit.INTEGRITY, {("extra", path)})
        (prefix / path).replace(late)


def test_nested_code_that_only_handles_errors_otherwise_is_other_code(tmp_path: Path) -> None:
    """Which `==` does not see in each version of Python."""
    source = tmp_path / "demo.py"
    source.write_text(
        "def f():\n    def g():\n        try:\n            h()\n        except OSError:\n            k()\n"
    )
    code = compile(source.read_text(), "elsewhere.py", "exec")
    assert is_compiled_from(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code), source, "")
    outer = code.co_consts[0]
    inner = next(one for one in outer.co_consts if hasattr(one, "co_code")).replace(co_exceptiontable=b"")
    outer = outer.replace(co_consts=tuple(inner if hasattr(one, "co_code") else one for one in outer.co_consts))
    code = code.replace(co_consts=(outer, *code.co_consts[1:]))
    assert not is_compiled_from(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code), source, "")


def test_added_packages_are_no_damage_but_what_they_replace_is(release: Layout) -> None:
    prefix = release.prefix
    wheel = prefix / f"{SITE}/more-1.0.dist-info"
    wheel.mkdir()
    (prefix / f"{SITE}/more.py").write_text("more = 1\n")
    py_compile.compile(str(prefix / f"{SITE}/more.py"))
    (prefix / "bin/more").write_text("#!/bin/sh\n")
    (wheel / "INSTALLER").write_text("pip\n")
    digest = hashlib.sha256(b"more = 1\n").digest()
    sha256 = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    lines = [
        f"more.py,sha256={sha256},9",
        f"{cached('more.py')},,",
        "../../../bin/more,,",
        "more-1.0.dist-info/INSTALLER,,",
        "more-1.0.dist-info/RECORD,,",
        f"{MODULE.removeprefix(f'{SITE}/')},,",
    ]
    (wheel / "RECORD").write_text("\n".join(lines) + "\n")
    (prefix / "share/other").write_text("other")
    record(prefix, "other-2.0-0", ["share/other"])
    code, said = verified(release)
    assert code == 0, said
    assert [line for line in said if line.startswith("  added")] == [
        "  added     more 1.0 (pip)",
        "  added     other 2.0 (conda)",
    ]
    added = {("added", "more"), ("added", "other")}
    (prefix / MODULE).write_text("replaced = True\n")
    (prefix / f"{SITE}/more.py").write_text("")
    (prefix / "share/other").unlink()
    wrong = {("modified", MODULE), ("modified", f"{SITE}/more.py"), ("modified", f"{SITE}/{cached('more.py')}")}
    assert found(release) == (Exit.INTEGRITY, added | wrong | {("missing", "share/other")})


def test_damaged_lists_of_added_packages_vouch_for_nothing(release: Layout) -> None:
    wheel, more = release.prefix / f"{SITE}/more-1.0.dist-info", f"{SITE}/more.py"
    wheel.mkdir()
    (release.prefix / more).touch()
    lists = (wheel / "RECORD", record(release.prefix, "other-2.0-0", [more]), release.prefix / "conda-meta/odd.json")
    for content in (b"", b"\xff", b"more.py", b"more.py,sha256=x,", b'{"paths_data": []}', b"[]"):
        for one in lists:
            one.write_bytes(content)
        code, wrong = found(release)
        assert code == Exit.INTEGRITY
        assert wrong >= {("extra", more), ("added", "more"), ("added", "other")}


def test_what_a_power_cut_leaves_is_named(release: Layout) -> None:
    """Files without content, with a part of it, or with zeros; and records of conda's."""
    prefix = release.prefix
    content = (prefix / MODULE).read_bytes()
    for left in (b"", content[:5], bytes(len(content))):
        (prefix / MODULE).write_bytes(left)
        assert found(release) == (Exit.INTEGRITY, {("modified", MODULE)})
    (prefix / MODULE).write_bytes(content)
    (prefix / f"conda-meta/{DEMO}.json").write_text("")
    assert found(release) == (Exit.INTEGRITY, {("modified", f"conda-meta/{DEMO}.json")})
    (prefix / f"conda-meta/{DEMO}.json").unlink()
    assert found(release) == (Exit.INTEGRITY, {("missing", f"conda-meta/{DEMO}.json")})


@pytest.mark.parametrize("damage", ["empty", "cut", "gone", "other"])
@pytest.mark.parametrize("which", ["receipt", "manifest"])
def test_what_vouches_is_checked_first(release: Layout, which: str, damage: str) -> None:
    path = release.receipt(NEW) if which == "receipt" else release.manifest
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(content[:50])
        case "gone":
            path.unlink()
        case "other":
            path.write_bytes(content.replace(b"0", b"1", 1) if which == "manifest" else b"[]")
    code, said = verified(release)
    assert (code, len(said)) == (Exit.INTEGRITY, 2), said


def test_a_receipt_that_names_what_is_no_manifest_is_no_traceback(release: Layout) -> None:
    for content in (b"", b"no gzip", gzip.compress(b"no manifest\n")[:-9], gzip.compress(b"no manifest\n")):
        release.manifest.write_bytes(content)
        write_receipt(release)
        code, said = verified(release)
        assert (code, said[1:]) == (Exit.INTEGRITY, [f"{release.manifest} is missing or damaged"])
    receipt = json.loads(release.receipt(NEW).read_text())
    for more in ({"path": 3}, {"path": "manifest.gz", "sha256": "0"}, "manifest.gz"):
        release.receipt(NEW).write_text(json.dumps({**receipt, "files": [*receipt["files"], more]}))
        assert verified(release)[0] == Exit.INTEGRITY


def test_a_release_from_before_manifests_says_so(release: Layout) -> None:
    release.receipt(NEW).write_text(json.dumps({"files": []}))
    assert verified(release)[0] == Exit.ERROR
    assert "older than manifests" in verified(release)[1][-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become an account that may not read all files")
def test_what_cannot_be_read_is_not_called_missing(release: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another account, which may look at all but two."""
    prefix = release.prefix
    shutil.copytree(systemd.TEMPLATES, prefix.parent / "templates")  # that account need not see the checkout
    monkeypatch.setattr(systemd, "TEMPLATES", prefix.parent / "templates")
    assert found(release) == (0, set())  # which has imported all that the other account needs
    (prefix / MODULE).chmod(0o600)
    (prefix / "share/barehub/examples").chmod(0o700)
    for above in release.base.parents:
        above.chmod(above.stat().st_mode | 0o011)
    code, wrong = json.loads(call_as("nobody", lambda: json.dumps(found(release), default=sorted), {}, 60))
    assert (code, wrong) == (Exit.ERROR, [["unknown", MODULE], ["unknown", "share/barehub/examples/"]])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_account_can_change_is_named(release: Layout) -> None:
    os.chown(release.prefix / MODULE, 65534, 65534)
    (release.prefix / "bin").chmod(0o777)
    (release.prefix / "bin/tool").chmod(0o4755)
    give_by_acl(release.prefix / LATE, 65534)
    wanted = {("exposed", MODULE), ("exposed", "bin/"), ("exposed", "bin/tool"), ("exposed", LATE)}
    assert found(release) == (Exit.INTEGRITY, wanted)


def test_units_that_systemd_reads_elsewhere_are_compared_too(release: Layout) -> None:
    """Copies, where BASE is on a file system of its own, and links that lead elsewhere."""
    name = "barehub-hub.service"
    copy, text = release.system_units / name, (release.release_units / name).read_text()
    copy.parent.mkdir(parents=True)
    copy.write_text(text)
    assert found(release) == (0, set())
    copy.write_text(f"{text}User=root\n")
    assert found(release) == (Exit.INTEGRITY, {("modified", str(copy))})
    (release.base.parent / name).write_text(text)
    copy.unlink()
    copy.symlink_to(release.base.parent / name)
    assert found(release) == (Exit.INTEGRITY, {("modified", str(copy))})


def test_a_release_that_is_not_active_says_so(release: Layout) -> None:
    release.hub.unlink()
    release.hub.symlink_to("releases/2026.10.24")
    code, said = verified(release)
    assert code == 0
    assert said[0] == f"checking {release.prefix}, which is not active: that is {release.releases}/2026.10.24"


def test_what_is_no_plain_file_is_neither_read_nor_waited_for(release: Layout) -> None:
    for path in (MODULE, LATE):
        (release.prefix / path).unlink()
    os.mkfifo(release.prefix / MODULE)
    (release.prefix / LATE).mkdir()
    assert found(release) == (Exit.INTEGRITY, {("modified", MODULE), ("missing", LATE), ("modified", cached(LATE))})


def test_a_file_that_changes_meanwhile_is_not_known(release: Layout) -> None:
    tool = release.prefix / "bin/tool"

    def read() -> None:
        with opened(tool):
            tool.write_text("#!/bin/sh\n# more\n")

    with pytest.raises(BusyError):
        read()


def test_a_text_that_names_the_placeholder_is_no_path_of_the_prefix(release: Layout) -> None:
    """The hash is of the file with a placeholder in it: a file that has the placeholder itself is another one."""
    (release.prefix / MODULE).write_bytes(b"#!" + PLACEHOLDER + b"/bin/python\n")
    write_receipt(release)
    assert found(release) == (Exit.INTEGRITY, {("modified", MODULE)})
