"""`-u` from a release with JupyterHub 5 to this one and back, with people at work: one machine, one story."""

import re
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HUB, PATIENT_SITE, PROXY, HubSession, Kernel, kernel_of, let_users_in
from tests.machines.machine import Machine
from tests.machines.watch import watched

OLD_SCHEMA = "4621fec11365"  # JupyterHub 5's
CONFIG = "/opt/barehub/jupyterhub_config.d"
SAVED = "/root/hub.tar"
STATE = "/opt/barehub/state/hub"
Labels = tuple[str, str]  # of the older release and of this one


@pytest.fixture(scope="module")
def labels(older: Path, installer: Path) -> Labels:
    return older.name.split("-")[1], installer.name.split("-")[1]


@pytest.fixture(scope="module")
def old_hub(machine: Machine, older: Path, installer: Path) -> Machine:
    """The older release, installed under a umask that would hide everything, with a unit that was edited."""
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(installer, "/mnt/newer.sh")
    machine.shell("umask 077; sh /mnt/older.sh -b --log /mnt/log")
    machine.write(f"/etc/systemd/system/{HUB}.d/site.conf", "[Service]\nEnvironment=SITE=ours\n")
    machine.succeed("systemctl", "daemon-reload")
    let_users_in(machine, PATIENT_SITE)
    return machine


@pytest.fixture(scope="module")
def kernel(old_hub: Machine) -> Kernel:
    """A kernel of alice's, which holds an answer."""
    kernel = kernel_of(old_hub, "alice")
    kernel.execute("answer = 42")
    return kernel


@pytest.fixture(scope="module")
def token(kernel: Kernel) -> str:
    """An API token of alice's."""
    alice = kernel.session
    made = alice.post(
        "/hub/api/users/alice/tokens", json={"note": "mine"}, headers={"X-XSRFToken": alice.xsrf("/hub/")}
    )
    made.raise_for_status()
    return made.json()["token"]


def invocations(hub: Machine) -> tuple[str, ...]:
    """What tells whether hub and proxy are still the same processes."""
    return tuple(hub.unit(unit, "InvocationID") for unit in (HUB, PROXY))


def version(hub: Machine) -> str:
    return HubSession(hub, "alice").get("/hub/api/").json()["version"]


def database(hub: Machine) -> list[str]:
    return hub.shell(f"cd {STATE} && ls *.sqlite").split()


def test_a_backup_is_made_while_people_work(old_hub: Machine, kernel: Kernel, token: str, labels: Labels) -> None:
    """For the last test, which restores it."""
    said = old_hub.succeed(BAREHUB, "backup", SAVED)
    assert f"backed up barehub {labels[0]} to {SAVED}: " in said
    assert old_hub.succeed("stat", "-c", "%a %U", SAVED) == "600 root\n"
    assert kernel.execute("print(answer)") == "42\n"


def test_what_does_not_get_through_changes_nothing(
    old_hub: Machine, kernel: Kernel, token: str, labels: Labels
) -> None:
    old, new = labels
    assert version(old_hub).startswith("5.")
    running = invocations(old_hub)
    assert "give -u to upgrade it" in old_hub.fails("sh", "/mnt/newer.sh", "-b", code=6)
    assert "not a number of releases to keep" in old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", "--keep", "0", code=2)
    dry = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-u", "--dry-run")
    assert f"switch   /opt/barehub/hub from {old} to {new}" in dry
    assert f"write    {STATE}/backups/jupyterhub-{old}.sqlite" in dry

    told = old_hub.succeed("runuser", "-u", "alice", "--", "sh", "/mnt/newer.sh", "--diff")
    assert re.search(r"\n  jupyterhub-base +5\.\S+ -> 6\.", told)
    assert f"\ndatabase  schema {OLD_SCHEMA} -> " in told
    assert "\nproxy     goes on\n" in told

    # A configuration that the new release does not load.
    old_hub.write(f"{CONFIG}/90-new.py", "import jupyterhub\nassert jupyterhub.version_info < (6,)\n")
    assert "90-new.py, line 2: AssertionError" in old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    old_hub.succeed("rm", f"{CONFIG}/90-new.py")

    # A database that is damaged.
    data = f"{STATE}/jupyterhub-{OLD_SCHEMA}.sqlite"
    old_hub.shell(f"mv {data} /mnt/kept; head -c 65536 /dev/urandom >{data}")
    assert "cannot be read: file is not a database" in old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    old_hub.succeed("mv", "/mnt/kept", data)

    # A package that somebody has added.
    site = old_hub.shell(f"echo /opt/barehub/releases/{old}/lib/python3*/site-packages").strip()
    old_hub.write(
        f"{site}/site_spawner-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: site-spawner\nVersion: 1.2\n"
    )
    old_hub.write(f"{site}/site_spawner-1.2.dist-info/INSTALLER", "pip\n")
    refusal = old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", "--require-same-packages", code=7)
    assert f"added to {old} by hand and not in {new}: site-spawner 1.2 (pip)" in refusal
    assert f"/opt/barehub/releases/{new}/bin/python -m pip install site-spawner==1.2" in refusal

    assert invocations(old_hub) == running
    assert old_hub.succeed("readlink", "/opt/barehub/hub") == f"releases/{old}\n"
    assert database(old_hub) == [f"jupyterhub-{OLD_SCHEMA}.sqlite"]
    old_hub.succeed(BAREHUB, "status")
    assert kernel.execute("print(answer)") == "42\n"
    old_hub.succeed("rm", "-r", f"/opt/barehub/releases/{new}")  # the next one begins at the beginning


def test_a_rehearsal_leaves_nothing_and_one_that_fails_refuses_the_upgrade(
    old_hub: Machine, kernel: Kernel, labels: Labels
) -> None:
    there = f"""find /opt/barehub -maxdepth 3 ! -name '*-journal' | sort; ls /run/systemd/system /home/bob
        readlink /opt/barehub/hub; sha256sum {CONFIG}/*; systemctl list-units --all --no-legend '*-rehearsal-*'
        pgrep -u bob -f 'singleuser|ipykernel' || :"""
    before, running = old_hub.shell(there), invocations(old_hub)
    with watched(kernel) as trouble:
        output = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-u", "--rehearse", "--canary", "bob")
        assert re.search(r"  started the server of bob +\d+\.\d s\n  opened a kernel: 1\+1 is 2 +\d", output)
        assert f"nothing is left of it: {labels[0]} is active as before" in output
        assert old_hub.shell(there) == before
        refusal = old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", "--canary", "alice", code=2)
        assert "alice has a server" in refusal
    assert trouble == []
    assert invocations(old_hub) == running
    old_hub.succeed("rm", "-r", f"/opt/barehub/releases/{labels[1]}")
    assert old_hub.shell(there) == before
    kernel.connect()  # nobody has read for longer than a server waits
    assert kernel.execute("print(answer)") == "42\n"


def test_an_upgrade_waits_for_a_server_that_is_just_starting_and_nobody_stops_working(
    old_hub: Machine, kernel: Kernel, token: str, labels: Labels
) -> None:
    old, new = labels
    old_hub.write("/run/slow-bob", "")
    bob = HubSession(old_hub, "bob")
    bob.login()  # which starts his server
    proxy = old_hub.unit(PROXY, "InvocationID")
    with watched(kernel) as trouble:
        command = "sh /mnt/newer.sh -b -u --wait 100 >/run/output 2>&1; echo $? >/run/code"
        old_hub.succeed("systemd-run", "--quiet", "--collect", "sh", "-c", command)
        old_hub.eventually("grep", "still starting, at most 100 s: bob", "/run/output")
        old_hub.succeed("rm", "/run/slow-bob")
        old_hub.eventually("test", "-s", "/run/code")
        output = old_hub.read("/run/output")
        assert old_hub.read("/run/code") == "0\n", output
    assert trouble == []
    assert f"backed up the database to {STATE}/backups/jupyterhub-{old}.sqlite" in output
    assert f"added to {old} by hand and not in {new}: site-spawner 1.2 (pip)" in output
    assert "removing" not in output
    assert re.search(rf"back +{BAREHUB} rollback +to {old}", output)

    assert version(old_hub).startswith("6.")
    assert re.search(rf"also there +{old}", old_hub.succeed(BAREHUB, "status"))
    # What the proxy runs is the same in both, so it was left alone, and so was her websocket.
    assert old_hub.unit(PROXY, "InvocationID") == proxy
    assert kernel.execute("print(answer)") == "42\n"
    assert kernel.session.is_logged_in()
    servers = HubSession(old_hub, "alice").get("/hub/api/users", headers={"Authorization": f"token {token}"}).json()
    assert {user["name"]: user["groups"] for user in servers} == {"alice": ["physics"], "bob": []}
    assert "/user/bob/lab" in bob.get("/user/bob/lab").url
    assert old_hub.unit(HUB, "Environment").endswith("SITE=ours")


def test_all_modes_are_what_they_should_be(old_hub: Machine, labels: Labels) -> None:
    """The first install ran under umask 077."""
    prefix = f"/opt/barehub/releases/{labels[0]}"
    assert not old_hub.shell(f"find {prefix} ! -type l ! -perm -0444").strip()
    assert not old_hub.shell(f"find {prefix} ! -type l -perm /0022").strip()
    (old_database,) = database(old_hub)
    for secret in (old_database, "jupyterhub_cookie_secret", "barehub-api-token", "backups"):
        old_hub.fails("runuser", "-u", "alice", "--", "cat", f"{STATE}/{secret}")
    assert old_hub.succeed("stat", "-c%a", f"{STATE}/backups/jupyterhub-{labels[0]}.sqlite") == "600\n"


def test_an_upgrade_to_what_is_there_touches_nothing(old_hub: Machine, labels: Labels) -> None:
    running = invocations(old_hub)
    old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    assert invocations(old_hub) == running
    refusal = old_hub.fails("sh", "/mnt/older.sh", "-b", "-u", code=6)
    assert f"{BAREHUB} rollback {labels[0]}" in refusal


def test_a_rollback_says_what_is_lost_and_nobody_stops_working(
    old_hub: Machine, kernel: Kernel, labels: Labels
) -> None:
    old, new = labels
    old_hub.succeed("useradd", "-m", "carol")
    old_hub.shell("echo carol:carol | chpasswd")
    HubSession(old_hub, "carol").login("carol")
    declined = old_hub.fails("sh", "-c", f"echo no | {BAREHUB} rollback", code=2)
    assert "nothing was changed" in declined
    assert "lost: users: carol\n" in declined
    assert "lost: running servers, which the hub forgets: bob\n" not in declined  # the backup at rest knows him
    with watched(kernel) as trouble:
        old_hub.succeed(BAREHUB, "rollback", "-y")
    assert trouble == []
    assert version(old_hub).startswith("5.")
    assert old_hub.succeed("readlink", "/opt/barehub/hub") == f"releases/{old}\n"
    assert database(old_hub) == [f"jupyterhub-{OLD_SCHEMA}.sqlite"]
    assert kernel.execute("print(answer)") == "42\n"
    assert kernel.session.is_logged_in()
    backups = old_hub.succeed("ls", f"{STATE}/backups").split()
    assert backups == [f"jupyterhub-{old}.sqlite", f"jupyterhub-{new}.sqlite"]
    assert f"there is no release before {old}" in old_hub.fails(BAREHUB, "rollback", code=2)
    assert "is newer than" in old_hub.fails(BAREHUB, "rollback", new, code=2)


def test_a_release_that_does_not_start_gives_way_to_the_old_one(
    old_hub: Machine, kernel: Kernel, labels: Labels
) -> None:
    old, new = labels
    jupyterhub = f"/opt/barehub/releases/{new}/bin/jupyterhub"
    old_hub.succeed("mv", jupyterhub, "/mnt/jupyterhub")
    with watched(kernel) as trouble:
        output = old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    assert trouble == []
    assert f"going back to {old}" in output
    assert "its last messages:" in output
    old_hub.eventually(BAREHUB, "status")
    assert old_hub.succeed("readlink", "/opt/barehub/hub") == f"releases/{old}\n"
    assert database(old_hub) == [f"jupyterhub-{OLD_SCHEMA}.sqlite"]
    assert kernel.execute("print(answer)") == "42\n"
    old_hub.succeed("mv", "/mnt/jupyterhub", jupyterhub)


def test_a_hub_that_forgets_a_server_gives_way_to_the_old_one(old_hub: Machine, kernel: Kernel, labels: Labels) -> None:
    """The new hub's spawner takes a server for stopped that runs."""
    old_hub.write(
        f"{CONFIG}/90-forgetful.py",
        "import jupyterhub\nfrom barehub.lifecycle import switchover\n"
        "if jupyterhub.version_info >= (6,):\n"
        "    async def poll(self): return 0\n    c.JupyterHub.spawner_class.poll = poll\n"
        "    switchover.KNOWN_SECONDS = 3\n",
    )
    output = old_hub.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    assert re.search(r"does not know the running servers of (alice, bob|bob, alice|alice) any more", output)
    old_hub.eventually(BAREHUB, "status")
    assert version(old_hub).startswith("5.")
    assert kernel.execute("print(answer)") == "42\n"
    old_hub.succeed("rm", f"{CONFIG}/90-forgetful.py")


def test_releases_and_backups_beyond_the_kept_ones_are_removed(
    old_hub: Machine, kernel: Kernel, labels: Labels
) -> None:
    old, new = labels
    output = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-u", "--keep", "1", "--proxy-user", "nobody")
    assert "--proxy-user was barehub-proxy and is nobody now" in output
    assert f"removing release {old}" in output
    assert old_hub.succeed("ls", "/opt/barehub/releases").split() == [new]
    assert old_hub.succeed("ls", f"{STATE}/backups") == f"jupyterhub-{new}.sqlite\n"  # of the rollback
    old_hub.succeed(BAREHUB, "status")
    kernel.connect()
    assert kernel.execute("print(answer)") == "42\n"


def test_a_repair_names_what_was_added_by_hand_and_takes_a_backup_into_use(old_hub: Machine, labels: Labels) -> None:
    """A backup is restored as the README has it: under the name jupyterhub.sqlite, and the installer does the rest."""
    site = old_hub.shell(f"echo /opt/barehub/releases/{labels[1]}/lib/python3*/site-packages").strip()
    old_hub.write(f"{site}/site_spawner-1.3.dist-info/INSTALLER", "pip\n")
    old_hub.succeed("systemctl", "stop", HUB)
    (name,) = database(old_hub)
    old_hub.shell(f"cd {STATE} && mv {name} jupyterhub.sqlite")
    output = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-f")
    assert "packages that were added by hand, to be added again: site-spawner 1.3 (pip)" in output
    assert database(old_hub) == [name]
    old_hub.succeed(BAREHUB, "status")


def test_the_backup_of_the_older_release_is_this_hub_on_a_machine_that_has_none(
    old_hub: Machine, kernel: Kernel, token: str, labels: Labels
) -> None:
    refusal = old_hub.fails("sh", "/mnt/newer.sh", "-b", "--restore", SAVED, code=6)
    assert "a restore replaces nothing" in refusal
    old_hub.succeed(BAREHUB, "uninstall", "-y")
    old_hub.succeed("rm", "-r", f"/etc/systemd/system/{HUB}.d")
    old_hub.fails("ls", "/opt/barehub")
    said = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "--restore", SAVED)
    assert f"restored the backup of barehub {labels[0]}" in said
    assert "migrated the database to schema" in said
    old_hub.succeed(BAREHUB, "status")
    assert version(old_hub).startswith("6.")
    assert kernel.session.is_logged_in()  # by the cookie that she got from the older release
    users = HubSession(old_hub, "alice").get("/hub/api/users", headers={"Authorization": f"token {token}"}).json()
    assert {user["name"]: user["groups"] for user in users} == {"alice": ["physics"], "bob": []}  # and no carol
    assert old_hub.unit(HUB, "Environment").endswith("SITE=ours")
