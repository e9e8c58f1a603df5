"""A hub that Ansible manages, with PostgreSQL: install, upgrade, and the way back, on one machine, as one story."""

import re
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HUB, HubSession
from tests.machines.machine import Machine

ROLE = Path(__file__).parents[2] / "post_install/data/share/barehub/examples/ansible"
PASSWORD = "pass%20 'word"
BACKUPS = "/opt/barehub/state/hub/backups"
SITE = """\
c.Authenticator.allow_all = True  # so that the database has those who have logged in
c.JupyterHub.redirect_to_server = False
"""
DATABASE = """\
from urllib.parse import quote
from barehub.secret import read_secret
c.JupyterHub.db_url = f"postgresql+psycopg://hub:{quote(read_secret('db-password'), safe='')}@127.0.0.1/hub"
"""
PLAY = """\
- hosts: all
  roles:
    - role: barehub
      vars:
        barehub_installer: /mnt/{installer}.sh
        barehub_options: [--bind-url, "http://:8000"]
        barehub_config: [/mnt/db-password, /mnt/50-test.py, /mnt/60-database.py]
"""


@pytest.fixture(scope="module")
def site(machine: Machine, older: Path, installer: Path) -> Machine:
    """A machine with a database for the hub, the role, both installers, and the site's configuration."""
    for file in ROLE.rglob("*.yml"):
        machine.copy_in(file, f"/srv/ansible/{file.relative_to(ROLE)}")
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(installer, "/mnt/newer.sh")
    machine.write("/mnt/50-test.py", SITE)
    machine.write("/mnt/60-database.py", DATABASE)
    machine.write("/mnt/db-password", f"{PASSWORD}\n", mode=0o600)
    machine.succeed("systemctl", "enable", "--now", "postgresql")
    machine.eventually("runuser", "-u", "postgres", "--", "psql", "-c", "select")
    quoted = PASSWORD.replace("'", "''")
    for statement in (
        f"create role hub login password '{quoted}'",
        "create database hub owner hub encoding 'UTF8' template template0",
    ):
        machine.succeed("runuser", "-u", "postgres", "--", "psql", "-c", statement)
    return machine


def play(site: Machine, installer: str) -> int:
    """Run the playbook; how many changes it reports."""
    __tracebackhide__ = True
    site.write("/srv/ansible/play.yml", PLAY.format(installer=installer))
    command = ("ansible-playbook", "--connection=local", "--inventory=localhost,", "play.yml")
    told = site.succeed("env", "-C", "/srv/ansible", "LC_ALL=C.UTF-8", *command)
    found = re.search(r"changed=(\d+) ", told)
    assert found, told
    return int(found[1])


def users(site: Machine) -> list[str]:
    query = "select name from users order by name"
    return site.succeed("runuser", "-u", "postgres", "--", "psql", "-Atd", "hub", "-c", query).split()


def test_the_role_installs_and_configures_and_a_second_run_changes_nothing(site: Machine, older: Path) -> None:
    assert play(site, "older") == 4  # the installer, the installation, the configuration, the reload
    assert play(site, "older") == 0
    HubSession(site, "alice").login()
    assert users(site) == ["alice"]
    assert site.succeed("stat", "-c%a", "/opt/barehub/jupyterhub_config.d/db-password") == "640\n"
    site.write("/mnt/50-test.py", f"{SITE}c.Authenticator.admin_users = {{'alice'}}\n")
    assert play(site, "older") == 2  # the configuration, the reload


def test_it_upgrades_with_a_dump_and_says_so_once(site: Machine, older: Path, installer: Path) -> None:
    assert play(site, "newer") == 2  # the installer, the upgrade
    assert play(site, "newer") == 0
    label = older.name.split("-")[1]
    assert site.succeed("stat", "-c%a", f"{BACKUPS}/jupyterhub-{label}.dump") == "600\n"
    assert "database is at" not in site.succeed(BAREHUB, "status")
    HubSession(site, "bob").login()
    assert users(site) == ["alice", "bob"]
    told = site.succeed("sh", "/mnt/newer.sh", "-b", "-f").splitlines()
    assert told[-1] == "changed: hub, proxy, files"


def test_without_its_server_the_hub_waits_and_an_installer_says_why(site: Machine) -> None:
    site.succeed("systemctl", "stop", "postgresql@15-main")
    told = site.fails("sh", "/mnt/newer.sh", "-b", "-u", code=7)
    assert "the database cannot be read: OperationalError: connection failed" in told
    assert "fix: start the database server, or correct c.JupyterHub.db_url" in told
    site.succeed("systemctl", "restart", HUB)
    assert "cannot be read" in site.fails(BAREHUB, "status")
    site.succeed("systemctl", "start", "postgresql@15-main")
    site.eventually(BAREHUB, "status")


def test_a_rollback_restores_the_dump_and_the_guides_lines_restore_what_it_kept(
    site: Machine, older: Path, installer: Path
) -> None:
    label = installer.name.split("-")[1]
    told = site.succeed(BAREHUB, "rollback", "-y")
    assert "lost: users: bob" in told
    site.eventually(BAREHUB, "status")
    assert users(site) == ["alice"]
    kept = f"{BACKUPS}/jupyterhub-{label}-rolled-back.dump"
    site.shell(
        f"systemctl stop {HUB}; cd /; runuser -u postgres -- psql -c 'drop database hub';"
        "runuser -u postgres -- psql -c \"create database hub owner hub encoding 'UTF8' template template0\";"
        f"runuser -u postgres -- pg_restore --no-owner --role=hub --dbname=hub <{kept}"
    )
    assert users(site) == ["alice", "bob"]
    site.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    HubSession(site, "bob").login()


def test_a_backup_brings_the_data_back_to_an_empty_database(site: Machine) -> None:
    bob = HubSession(site, "bob")
    bob.login()
    assert "not in it" not in site.succeed(BAREHUB, "backup", "/root/hub.tar")
    site.succeed(BAREHUB, "uninstall", "-y")
    restore = ("sh", "/mnt/newer.sh", "-b", "--restore", "/root/hub.tar")
    assert "fix: create the database again, empty" in site.fails(*restore, code=7)
    for statement in (
        "drop database hub",
        "create database hub owner hub encoding 'UTF8' template template0",
    ):
        site.succeed("runuser", "-u", "postgres", "--", "psql", "-c", statement)
    site.succeed(*restore)
    assert users(site) == ["alice", "bob"]
    assert bob.is_logged_in()


def test_the_password_is_in_no_log_and_the_hub_starts_at_boot(site: Machine) -> None:
    journal = site.succeed("journalctl", "--boot", "--output=cat")
    assert "pass%20" not in journal
    assert "pass%2520" not in journal
    site.reboot()
    site.eventually(BAREHUB, "status")
