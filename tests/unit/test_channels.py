"""construct.channels and mirror: a small channel stands in for conda-forge, with several versions of everything."""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from construct.channels import channel_name, lock_from_channels
from construct.locked import read_lock
from construct.mirror import add_to_channel, write_archive_sums
from construct.packages import fill_channel
from recipe.channel import TIMESTAMP, write_index
from recipe.convert import assemble
from recipe.errors import UserError
from recipe.metadata import CondaMetadata, Target
from recipe.overlay import Stack

ROOT = Path(__file__).parents[2]
# What barehub's own package asks for, and a python.
BASE = ("bcrypt", "jupyterhub-base", "jupyterhub-traefik-proxy", "sqlalchemy", "tornado", "traitlets")

Packages = Sequence[tuple[str, str, tuple[str, ...]]]
Make = Callable[..., Path]


@pytest.fixture
def make_channel(tmp_path: Path) -> Make:
    """Call it with a name and (package, version, dependencies) to have a channel of that name."""

    def make(name: str, packages: Packages, platform: str = "linux-64") -> Path:
        channel = tmp_path / name
        for subdir in ("noarch", platform):
            (channel / subdir).mkdir(parents=True, exist_ok=True)
        (tmp_path / "empty").mkdir(exist_ok=True)
        for package, version, depends in packages:
            stage = tmp_path / "stage" / name / f"{package}-{version}"
            stage.mkdir(parents=True)
            (stage / package).write_text(f"{package} {version}")
            metadata = CondaMetadata(package, version, "", depends)
            target = Target("3.11", platform=platform)
            assemble(metadata, target, stage, tmp_path / "empty", channel / platform, TIMESTAMP)
        write_index(channel)
        return channel

    return make


@pytest.fixture
def forge(make_channel: Make) -> Path:
    """Two versions of each package; the newer hub asks for a newer glibc than the usual target has."""
    packages = [("python", "3.12.1", ()), *((name, v, ()) for name in BASE[:4] for v in ("1.0", "2.0"))]
    packages += [("traitlets", "1.0", ()), ("traitlets", "2.0", ())]
    packages += [("tornado", "6.0", ("__glibc >=2.17",)), ("tornado", "7.0", ("__glibc >=2.34",)), ("extra", "1.0", ())]
    return make_channel("forge", packages)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository like this one, whose environment is the stand-in channel's."""
    root = tmp_path / "repository"
    (root / "construct").mkdir(parents=True)
    specs = ["python >=3.11", "jupyterhub-base", "barehub"]
    (root / "construct/environment.yml").write_text("dependencies:\n" + "".join(f"  - {one}\n" for one in specs))
    shutil.copytree(ROOT / "post_install", root / "post_install", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "LICENSE", root / "LICENSE")
    (root / ".cache").mkdir()
    return root


def lock(
    stack: Stack, *channels: Path, update: list[str] | None = None, stated: Sequence[str] = (), platform="linux-64"
) -> dict[str, str]:
    """Lock, and return the version of each package."""
    path = lock_from_channels(stack, [str(one) for one in channels], platform, stated, update)
    return {name: line.version.removeprefix("==") for name, line in read_lock(path).items()}


def overlay(tmp_path: Path, name: str, *specs: str, **files: str) -> Path:
    folder = tmp_path / name
    (folder / "jupyterhub_config.d").mkdir(parents=True)
    if specs:
        (folder / "environment.yml").write_text("dependencies:\n" + "".join(f"  - {one}\n" for one in specs))
    for stem, text in files.items():
        (folder / f"jupyterhub_config.d/{stem}.py").write_text(text)
    return folder


def test_a_lock_holds_the_newest_that_the_target_can_run_with_all_hashes(forge: Path, repository: Path) -> None:
    versions = lock(Stack(repository), forge)
    assert versions["tornado"] == "6.0"
    assert versions["jupyterhub-base"] == "2.0"
    assert versions.keys() == {"python", *BASE}
    text = (repository / "environment.lock.yml").read_text()
    assert "__glibc=2.28" in text
    assert sorted(yaml.safe_load(text)) == ["channels", "dependencies", "name"]
    assert all(line.sha256 and line.build for line in read_lock(repository / "environment.lock.yml").values())
    assert lock(Stack(repository), forge, stated=["__glibc=2.34"])["tornado"] == "7.0"


def test_each_platform_has_a_lock_of_its_own(make_channel: Make, forge: Path, repository: Path) -> None:
    arm = make_channel("arm", [("python", "3.13.0", ()), *((name, "3.0", ()) for name in BASE)], "linux-aarch64")
    lock(Stack(repository), forge)
    before = (repository / "environment.lock.yml").read_text()
    assert lock(Stack(repository), arm, platform="linux-aarch64")["tornado"] == "3.0"
    assert (repository / "construct/environment.linux-aarch64.lock.yml").exists()
    assert (repository / "environment.lock.yml").read_text() == before


def test_the_first_channel_that_has_a_package_is_the_one_it_comes_from(
    make_channel: Make, forge: Path, repository: Path
) -> None:
    site = make_channel("site", [("jupyterhub-base", "1.5", ())])
    assert lock(Stack(repository), site, forge)["jupyterhub-base"] == "1.5"
    assert lock(Stack(repository), forge, site)["jupyterhub-base"] == "2.0"


def test_only_what_is_named_moves(make_channel: Make, forge: Path, repository: Path) -> None:
    stack = Stack(repository)
    before = lock(stack, forge)
    newer = make_channel("forge", [(name, "3.0", ()) for name in BASE])
    assert lock(stack, newer, update=["bcrypt"]) == before | {"bcrypt": "3.0"}
    with pytest.raises(UserError, match="bcript: not in"):
        lock(stack, newer, update=["bcript"])
    assert lock(stack, newer, update=[])["traitlets"] == "3.0"


def test_an_overlay_moves_what_it_names_and_holds_the_rest(
    tmp_path: Path, make_channel: Make, forge: Path, repository: Path
) -> None:
    before = lock(Stack(repository), forge)
    newer = make_channel("forge", [(name, "3.0", ()) for name in BASE])
    old = overlay(tmp_path, "old", "jupyterhub-base <2", "extra")
    assert lock(Stack.of(repository, [old]), newer) == before | {"jupyterhub-base": "1.0", "extra": "1.0"}
    assert (old / "environment.lock.yml").exists()


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("conda-forge", "conda-forge"),
        ("https://me:secret@host.invalid/t/token/team/main/", "team/main"),
        ("file:///srv/mirror", "/srv/mirror"),
        ("../mirror", "../mirror"),
    ],
)
def test_a_lock_names_no_host(given: str, written: str) -> None:
    assert channel_name(given) == written


def test_exactly_the_locked_packages_are_gathered_with_our_own(tmp_path: Path, forge: Path, repository: Path) -> None:
    stack = Stack.of(repository, [overlay(tmp_path, "site", **{"60-site": "c.x = 1\n"})])
    lock(Stack(repository), forge)
    shutil.copytree(forge, tmp_path / "mirror")  # another place, the same files
    path = repository / "environment.lock.yml"
    records = fill_channel(stack, path, [str(tmp_path / "mirror")], repository / ".cache", tmp_path / "payload")
    names = {record.name.normalized for record in records}
    assert names == {"python", *BASE, "barehub", "barehub-overlay-site"}
    assert len([*(tmp_path / "payload").glob("*/*.conda")]) == len(names)


def test_what_a_channel_has_corrected_stays_so(tmp_path: Path, forge: Path, repository: Path) -> None:
    """conda-forge patches its index when a package turns out to need something else than it says."""
    lock(Stack(repository), forge)
    index = forge / "linux-64/repodata.json"
    [name] = [one.name for one in forge.glob("linux-64/bcrypt-2.0-*.conda")]
    repodata = json.loads(index.read_text())
    repodata["packages.conda"][name]["depends"] = ["tornado <7"]
    index.write_text(json.dumps(repodata))
    path = repository / "environment.lock.yml"
    fill_channel(Stack(repository), path, [str(forge)], repository / ".cache", tmp_path / "payload")
    written = json.loads((tmp_path / "payload/linux-64/repodata.json").read_text())["packages.conda"]
    assert written[name]["depends"] == ["tornado <7"]
    assert all("constrains" not in record for other, record in written.items() if other != name)


def test_a_damaged_archive_of_a_file_channel_is_refused(tmp_path: Path, forge: Path, repository: Path) -> None:
    lock(Stack(repository), forge)
    [archive] = forge.glob("linux-64/bcrypt-2.0-*.conda")
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    path = repository / "environment.lock.yml"
    with pytest.raises(UserError, match=r"bcrypt-2\.0-h[0-9a-f]+_0\.conda has sha256"):
        fill_channel(Stack(repository), path, [str(forge)], repository / ".cache", tmp_path / "payload")


def test_another_archive_than_the_locked_one_is_refused(tmp_path: Path, forge: Path, repository: Path) -> None:
    """The channel's index and file agree with each other, and not with the lock."""
    lock(Stack(repository), forge)
    path = repository / "environment.lock.yml"
    path.write_text(path.read_text().replace(read_lock(path)["bcrypt"].sha256, "0" * 64))
    with pytest.raises(UserError, match="bcrypt"):
        fill_channel(Stack(repository), path, [str(forge)], repository / ".cache", tmp_path / "payload")


def test_a_lock_of_a_channel_is_not_for_wheels(tmp_path: Path, forge: Path, repository: Path) -> None:
    lock(Stack(repository), forge)
    path = repository / "environment.lock.yml"
    with pytest.raises(UserError, match="is one of conda channels") as caught:
        fill_channel(Stack(repository), path, [], repository / ".cache", tmp_path / "payload")
    assert f"build --channel {forge}" in caught.value.fix


def staged(channel: Path, tmp_path: Path) -> Path:
    """A copy for `add_to_channel` to use up."""
    copy = tmp_path / "new"
    shutil.copytree(channel, copy)
    write_archive_sums(copy)
    return copy


@pytest.mark.parametrize("tools", ["all", "no zstd"])
def test_channels_add_up(tmp_path: Path, make_channel: Make, monkeypatch: pytest.MonkeyPatch, tools: str) -> None:
    old, new = [("one", "1.0", ()), ("two", "1.0", ())], [("two", "1.0", ()), ("one", "1.1", ("two",))]
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    if tools != "all":
        only = "sh awk sort sed mv rm cat dd wc mkdir basename dirname sha256sum sync"
        (tmp_path / "bin").mkdir()
        for tool in only.split():
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    channels = [make_channel("forge", old), make_channel("other/forge", new)]
    (tmp_path / "stage").rename(tmp_path / "away")
    for channel in (*channels, channels[0]):
        add_to_channel(staged(channel, tmp_path), mirror)
        shutil.rmtree(tmp_path / "new")
    monkeypatch.undo()
    index = (mirror / "linux-64/repodata.json").read_text()
    names = sorted(name.rpartition("-")[0] for name in json.loads(index)["packages.conda"])
    assert names == ["one-1.0", "one-1.1", "two-1.0"]
    compressed = mirror / "linux-64/repodata.json.zst"
    unpacked = subprocess.run(["zstd", "-dcq", compressed], capture_output=True, text=True, check=True).stdout
    assert unpacked == index
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=mirror, check=True)
    assert len((mirror / "SHA256SUMS").read_text().splitlines()) == 3
    before = index
    write_index(mirror)  # what an indexer makes of the archives
    assert (mirror / "linux-64/repodata.json").read_text() == before


def test_an_archive_that_differs_or_a_foreign_index_stops_it_before_anything_changes(
    tmp_path: Path, make_channel: Make
) -> None:
    mirror, channel = tmp_path / "mirror", make_channel("forge", [("one", "1.0", ()), ("two", "1.0", ())])
    shutil.copytree(channel, mirror)
    [archive] = mirror.glob("linux-64/two-*.conda")
    archive.write_bytes(b"other")
    before = {path: path.read_bytes() for path in mirror.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="differs from the package of the same name"):
        add_to_channel(staged(channel, tmp_path), mirror)
    assert {path: path.read_bytes() for path in mirror.rglob("*") if path.is_file()} == before
    shutil.rmtree(tmp_path / "new")
    index = mirror / "linux-64/repodata.json"
    index.write_text(json.dumps(json.loads(index.read_text())))
    with pytest.raises(UserError, match="written by another tool"):
        add_to_channel(staged(channel, tmp_path), mirror)
