"""Advisories in OSV's format: what is read, which versions they touch, `release.py audit`, the installer's --audit."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import packaging
import pytest
from packaging.version import Version

import release
from construct import osv
from construct.advisories import known_to_installer, packages_of, read_advisories
from recipe.errors import UserError
from recipe.lock_file import Line, Lock
from tests.unit.installers import SHELLS, refused, run, write
from tests.unit.test_comparison import OLD, add_wheel, make_active
from tests.unit.test_diff import lock
from tests.unit.test_verify import pack, write_payload

EVERYTHING = [{"introduced": "0"}]
V3 = f"{osv.TRAEFIK}/v3"


def advisory(identifier: str, name: str, events: Sequence[dict[str, str]] = EVERYTHING, **more: Any) -> dict[str, Any]:
    """An advisory of PyPI, or of Go if the name is a path; its keywords replace fields."""
    ranges = [{"type": "ECOSYSTEM", "events": list(events)}]
    package = {"ecosystem": "Go" if "/" in name else "PyPI", "name": name}
    return {
        "schema_version": "1.7.4",
        "id": identifier,
        "modified": "2026-11-20T18:14:51Z",
        "summary": f"Of {name}",
        "affected": [{"package": package, "ranges": ranges}],
        **more,
    }


def save(directory: Path, *advisories: object) -> Path:
    directory.mkdir(exist_ok=True)
    for number, one in enumerate(advisories):
        (directory / f"{number}.json").write_text(one if isinstance(one, str) else json.dumps(one))
    return directory


@pytest.mark.parametrize(
    ("events", "touched", "spared"),
    [
        (EVERYTHING, ["0.0.1", "9.0", "1.0a1"], []),
        ([{"introduced": "0"}, {"fixed": "1.10"}], ["1.9", "1.10rc1", "0.0.dev0"], ["1.10", "1.10.0", "1.10.post1"]),
        ([{"fixed": "1.10"}, {"introduced": "1.2"}], ["1.2", "1.9"], ["1.1", "1.10", "2.0"]),  # in any order
        ([{"introduced": "1.0"}, {"last_affected": "1.2.0"}], ["1.0", "1.2"], ["0.9", "1.2.1"]),
        ([{"introduced": "1.2"}, {"last_affected": "1.2"}], ["1.2"], ["1.1", "1.2.1"]),
        (
            [{"introduced": "1.0"}, {"fixed": "1.1"}, {"introduced": "2.0"}, {"fixed": "2.1"}],
            ["1.0.5", "2.0"],
            ["1.1", "1.9", "2.1"],
        ),
        ([{"introduced": "1.0"}, {"fixed": "1.1"}, {"introduced": "1.1"}], ["1.1", "2.0"], ["0.9"]),
        ([{"introduced": "0"}, {"limit": "2.0"}], ["1.9"], ["2.0"]),
        ([{"introduced": "0"}, {"limit": "*"}], ["2.0"], []),
        ([{"introduced": "3.0.0-beta3"}, {"fixed": "v3.0.0-rc.5"}], ["3.0.0b3", "3.0.0rc4"], ["3.0.0b2", "3.0.0"]),
        ([{"fixed": "1.0"}], [], ["0.9", "1.0"]),
        ([], [], ["1.0"]),
    ],
)
def test_ranges_are_of_pep_440_and_by_osvs_rules(
    events: list[dict[str, str]], touched: list[str], spared: list[str]
) -> None:
    steps = [next(iter(event.items())) for event in events]
    for version in touched + spared:
        assert osv.in_range(steps, Version(version)) == (version in touched), version


@pytest.mark.parametrize(
    ("name", "ecosystem", "affected"),
    [
        ("Python_JSON.Logger", "PyPI", True),
        ("python-json-logger", "PyPI:extra", True),
        ("python-json-logger", "npm", False),
        ("python-json", "PyPI", False),
        (V3, "Go", True),
        (f"{osv.TRAEFIK}/v2", "Go", False),
        (osv.TRAEFIK, "Go", False),  # of a module without a suffix there are versions 0 and 1
        (f"{osv.TRAEFIK}-mesh", "Go", False),
    ],
)
def test_packages_are_told_by_ecosystem_and_name(name: str, ecosystem: str, affected: bool, tmp_path: Path) -> None:
    one = advisory("GHSA-1", "x")
    one["affected"][0]["package"] = {"ecosystem": ecosystem, "name": name}
    packages, _ = packages_of(
        Lock.parse("dependencies:\n  - python-json-logger==4.2.0\n  - traefik==3.7.15\n", "").lines
    )
    found = read_advisories(save(tmp_path / "osv", one), packages)
    assert bool(osv.judge(found.about, packages)[0]) == affected


def test_a_version_may_be_listed_and_an_entry_may_be_of_commits_only(tmp_path: Path) -> None:
    listed = advisory("PYSEC-1", "one", affected=[])
    listed["affected"] = [{"package": {"ecosystem": "PyPI", "name": "one"}, "versions": ["0.1dev-r1716", "1.0.0"]}]
    commits = advisory("PYSEC-2", "one")
    commits["affected"][0]["ranges"] = [{"type": "GIT", "repo": "x", "events": [{"introduced": "0"}]}]
    strange = advisory("PYSEC-3", "one", [{"introduced": "0"}, {"fixed": "1.0-final-really"}])
    found = read_advisories(save(tmp_path / "osv", listed, commits, strange), {"PyPI/one": "1.0"})
    hits, undecided = osv.judge(found.about, {"PyPI/one": "1.0"})
    assert [hit.names for hit in hits] == [("PYSEC-1",)]
    assert undecided[0] == "PYSEC-2 for PyPI/one 1.0: it names commits and no versions"
    assert undecided[1].startswith("PYSEC-3 for PyPI/one 1.0: Invalid version")
    assert osv.judge(found.about, {"PyPI/one": "1.1"})[0] == []


def test_what_several_databases_say_of_one_thing_is_one(tmp_path: Path) -> None:
    about = (
        advisory("PYSEC-2026-7", "one", aliases=["CVE-2026-1"], summary=""),
        advisory(
            "GHSA-a", "one", aliases=["CVE-2026-1"], database_specific={"severity": "HIGH"}, summary="It\x1b[31m is"
        ),
        advisory("GHSA-b", "one", aliases=["CVE-2026-2"]),
    )
    found = read_advisories(save(tmp_path / "osv", *about), {"PyPI/one": "1.0"})
    hits, _ = osv.judge(found.about, {"PyPI/one": "1.0"})
    assert osv.table(hits) == [
        "one 1.0  GHSA-a (CVE-2026-1, PYSEC-2026-7)  HIGH  It [31m is",
        "one 1.0  GHSA-b (CVE-2026-2)                      Of one",
    ]


def test_files_directories_zips_and_mirrors_say_the_same(tmp_path: Path) -> None:
    """In whatever order a file system or an archive has them."""
    several = [advisory("GHSA-b", "one"), advisory("GHSA-a", "one", modified="2026-11-21T00:00:00Z")]
    plain = save(tmp_path / "osv", *several)
    for path in (tmp_path / "all.zip", tmp_path / "mirror/PyPI/all.zip"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("1.json", "0.json"):
                archive.write(plain / name, f"GHSA-{name}")
            archive.writestr("README", "no advisory")
    lines = {"one": Line("one", "1.0")}
    texts = {known_to_installer(source, lines) for source in (plain, tmp_path / "all.zip", tmp_path / "mirror")}
    [text] = texts
    known = json.loads(text)
    assert [one["id"] for one in known["advisories"]] == ["GHSA-a", "GHSA-b"]
    assert (known["newest"], known["skipped"], known["packages"]) == ("2026-11-21", 0, {"PyPI/one": "1.0"})
    assert len(read_advisories(plain / "0.json", known["packages"]).about) == 1


def test_what_is_no_advisory_is_named_in_a_line_and_withdrawn_ones_do_not_count(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    no_id = advisory("x", "one")
    del no_id["id"]
    gone = advisory("GHSA-gone", "one", withdrawn="2026-11-21T00:00:00Z")
    wrong: list[object] = ["{", "[]", no_id, advisory("GHSA-x", "one", modified="yesterday")]
    wrong += [advisory("GHSA-y", "one", affected=["one"]), advisory("GHSA-z", "one", affected=[{"ranges": [{}]}])]
    source = save(tmp_path / "osv", *wrong, gone, advisory("GHSA-1", "one"))
    found = read_advisories(source, {"PyPI/one": "1.0"})
    assert [one["id"] for one in found.about] == ["GHSA-1"]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == len(found.skipped) == len(wrong)
    for number, line in enumerate(said):
        assert line.startswith(f"WARNING: skipped {source}/{number}.json, which is no advisory in OSV's format: ")
    assert said[2].endswith("it has no 'id'")


@pytest.mark.parametrize("content", [None, "", "{", "{}"])
def test_a_source_without_advisories_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "all.zip"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"all\.zip (cannot be read|holds no advisories)") as caught:
        read_advisories(path, {})
    assert caught.value.fix


@pytest.mark.parametrize("encrypted", [True, False])
def test_an_archive_that_is_damaged_or_encrypted_is_named(tmp_path: Path, encrypted: bool) -> None:
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.json", json.dumps(advisory("GHSA-1", "one")))
    content = bytearray(path.read_bytes())
    if encrypted:
        content[content.index(b"PK\1\2") + 8] = 1  # flags, in the archive's directory
    else:
        content[36:56] = b"\xff" * 20  # behind the header of 30 bytes and the name
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"all\.zip cannot be read") as caught:
        read_advisories(path, {})
    assert caught.value.fix


def audited(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    arguments = release.parse(["audit", *map(str, words)])
    return arguments.command(arguments), capsys.readouterr().out


def test_a_lock_and_an_installer_are_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(tmp_path / "osv", advisory("GHSA-1", "jupyterhub", [{"introduced": "0"}, {"fixed": "6"}]))
    old = lock(tmp_path / "old.yml", ["jupyterhub-base==5.5.4", "python>=3.11", "traefik==3.7.15"])
    new = lock(tmp_path / "new.yml", ["jupyterhub-base==6.1.1"])
    code, told = audited(capsys, source, old)
    assert code == 0
    about = f"{source}: 1 advisories, the newest of 2026-11-20, 1 of them about these packages"
    assert told.startswith(f"{old}: 2 packages\n{about}\n")
    assert "\njupyterhub 5.5.4  GHSA-1    Of jupyterhub\n" in told
    assert "not looked for: python and the libraries in it\n" in told
    assert audited(capsys, source, old, "--fail")[0] == 1
    code, told = audited(capsys, source, new, "--fail")
    assert code == 0
    assert "none of them touches these versions\n" in told

    write_payload(tmp_path / "payload", {"jupyterhub-base": "5.0"})
    code, told = audited(capsys, source, pack(tmp_path / "payload", tmp_path))
    assert "not looked for: python and the libraries in it, jupyterhub-base\n" in told  # its build is not for a Python


def test_what_was_not_understood_fails_an_audit_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = lock(tmp_path / "new.yml", ["one==1.0"])
    strange = advisory("GHSA-1", "one", [{"introduced": "x y"}])
    for source in (save(tmp_path / "a", advisory("GHSA-2", "two"), "{"), save(tmp_path / "b", strange)):
        assert audited(capsys, source, new)[0] == 0
        assert audited(capsys, source, new, "--fail")[0] == 1


def knowing(tmp_path: Path, versions: dict[str, str], *advisories: object) -> Path:
    """An installer that was built with these advisories, of a release with these versions."""
    lines = {name: Line(name, version) for name, version in versions.items()}
    return write(tmp_path, advisories=known_to_installer(save(tmp_path / "osv", *advisories), lines))


@pytest.mark.parametrize("shell", SHELLS)
def test_an_installer_tells_what_the_active_release_has_and_what_it_fixes(tmp_path: Path, shell: str) -> None:
    base = tmp_path / "base"
    prefix = make_active(base, schema=None)
    [site] = prefix.glob("lib/python3*/site-packages")
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    for name, version in (("jupyterhub", "5.5.4"), ("tornado", "6.5"), ("site-spawner", "1.2")):
        add_wheel(prefix, name, version)
    installer = knowing(
        tmp_path,
        {"jupyterhub-base": "6.1.1", "tornado": "6.6.1", "traefik": "3.8.0", "new-one": "1.0"},
        advisory("GHSA-1", "jupyterhub", [{"introduced": "0"}, {"fixed": "6"}], database_specific={"severity": "HIGH"}),
        advisory("GHSA-2", "tornado"),
        advisory("GHSA-3", V3, [{"introduced": "3.0.0"}, {"fixed": "3.8.0"}]),
        advisory("GHSA-4", "new-one"),
        advisory("GHSA-5", "tornado", [{"introduced": "x y"}]),
        advisory("GHSA-6", "jupyterhub", [{"introduced": "0"}, {"fixed": "5"}]),
        "{",
    )
    done = run(installer, "--audit", "-p", str(base), shell=shell)
    assert done.returncode == 0, done
    assert (
        done.stdout
        == f"""\
barehub 2026.11.24 knows 6 advisories about its packages, the newest of 2026-11-20
  1 could not be read when it was built

the active release, {OLD}, has these, and barehub 2026.11.24 has not:
  {V3} 3.7.15  GHSA-3        Of {V3}
  jupyterhub 5.5.4                      GHSA-1  HIGH  Of jupyterhub

the active release, {OLD}, has these, and so has barehub 2026.11.24:
  tornado 6.5  GHSA-2    Of tornado

barehub 2026.11.24 has these, and the active release, {OLD}, has not:
  new-one 1.0  GHSA-4    Of new-one

not decided: GHSA-5 for PyPI/tornado 6.5: Invalid version: 'x y'
not decided: GHSA-5 for PyPI/tornado 6.6.1: Invalid version: 'x y'
not looked for: python and the libraries in it, site-spawner
"""
    )


def test_an_installer_without_advisories_says_so(tmp_path: Path) -> None:
    make_active(tmp_path / "base", schema=None)
    refused(run(write(tmp_path), "--audit", "-p", str(tmp_path / "base")), 1, "knows no advisories")


def test_without_any_hit_that_is_said(tmp_path: Path) -> None:
    prefix = make_active(tmp_path / "base", schema=None)
    [site] = prefix.glob("lib/python3*/site-packages")
    (site / "packaging").symlink_to(Path(packaging.__file__).parent)
    installer = knowing(tmp_path, {"tornado": "6.6.1"}, advisory("GHSA-2", "tornado", [{"introduced": "7"}]))
    told = run(installer, "--audit", "-p", str(tmp_path / "base")).stdout
    assert f"\nthe active release, {OLD}, has none of them, nor has barehub 2026.11.24\n" in told


def test_packages_of_conda_channels_that_are_no_pythons_are_not_taken_for_pypis() -> None:
    lines = {
        name: Line(name, "1.0", build, "0" * 64)
        for name, build in (("openssl", "h1_0"), ("tornado", "py312h1_0"), ("jinja2", "pyhd8ed1ab_0"), ("python", "h0"))
    }
    assert packages_of(lines) == ({"PyPI/tornado": "1.0", "PyPI/jinja2": "1.0"}, ["openssl"])
