"""An ordinary user with a hub of their own, under their own systemd."""

from tests.machines.hub_client import TEST_CONFIG, HubSession
from tests.machines.machine import Machine

PORTS = {"alice": 8000, "bob": 8200}
BASE = "/home/{}/hub"


def start_systemd(machine: Machine, user: str) -> None:
    """Start the user's systemd, now and at boot."""
    unit = f"user@{uid(machine, user)}.service"
    if machine.run("loginctl", "enable-linger", user).returncode:
        # On a host with cgroup v1, logind 257 does not know who asks. It leaves this file, and reads it at boot.
        machine.write(f"/var/lib/systemd/linger/{user}", "")
        machine.succeed("systemctl", "start", unit)
    machine.wait_for_unit(unit)


def uid(machine: Machine, user: str) -> str:
    return machine.succeed("id", "-u", user).strip()


def run(machine: Machine, user: str, *words: str) -> str:
    """Run a command as `user` without a session, as from a batch job: XDG_RUNTIME_DIR is not set."""
    return machine.succeed(*as_user(user), *words)


def as_user(user: str) -> tuple[str, ...]:
    return ("env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", f"HOME=/home/{user}", "runuser", "-u", user, "--")


def barehub(machine: Machine, user: str, *words: str) -> str:
    return run(machine, user, f"{BASE.format(user)}/hub/bin/barehub", *words)


def until_healthy(machine: Machine, user: str) -> str:
    return machine.eventually(*as_user(user), f"{BASE.format(user)}/hub/bin/barehub", "status")


def systemctl(machine: Machine, user: str, *words: str) -> str:
    return run(machine, user, "env", f"XDG_RUNTIME_DIR=/run/user/{uid(machine, user)}", "systemctl", "--user", *words)


def session(machine: Machine, user: str) -> HubSession:
    return HubSession(machine, user, f"http://127.0.0.1:{PORTS[user]}")


def install(machine: Machine, user: str, file: str, *more: str) -> str:
    return run(machine, user, "sh", file, "-b", "-p", BASE.format(user), *more)


def let_in(machine: Machine, user: str) -> None:
    """Add the configuration that lets the user log in to their own hub, and restart it."""
    config = TEST_CONFIG.replace('{"alice", "bob"}', repr({user}))
    machine.write(f"{BASE.format(user)}/jupyterhub_config.d/50-test.py", config)
    systemctl(machine, user, "restart", "barehub-hub.service")
    until_healthy(machine, user)
