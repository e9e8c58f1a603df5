"""A machine where another account wants the hub's port, all the time: through restarts, an upgrade, and a reboot."""

import json
import re
from pathlib import Path

import pytest

from tests.machines.hub_client import BAREHUB, HUB, PROXY, HubSession, Kernel, kernel_of, let_users_in
from tests.machines.machine import Machine

CONFIG = "/opt/barehub/jupyterhub_config.d"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
# Takes each of the ports as soon as it is free, writes down what it is sent, and answers as a hub would.
THIEF = f"""
import errno, socket, sys, threading, time
def log(*words):
    print(*words, file=sys.stderr, flush=True)
def serve(port, client):
    log("got", port, client.recv(65536))
    client.sendall({ANSWER!r})
    client.close()
def steal(port):
    told = None
    while True:
        try:
            thief = socket.create_server(("127.0.0.1", port), backlog=100)
            break
        except OSError as error:
            if error.errno != told:
                log("cannot", port, errno.errorcode[told := error.errno])
            time.sleep(0.0002)
    log("took", port)
    while True:
        threading.Thread(target=serve, args=(port, thief.accept()[0])).start()
for port in map(int, sys.argv[1:]):
    threading.Thread(target=steal, args=(port,)).start()
"""
# Bob tries to log in, all the time.
VISITOR = """
import time, urllib.parse, urllib.request
form = urllib.parse.urlencode({"username": "bob", "password": "bobs-secret"}).encode()
while True:
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/hub/login", form, timeout=60)
    except OSError:
        pass
    time.sleep(0.05)
"""
UNIT = """
[Unit]
Before=barehub-proxy.service barehub-hub.service
[Service]
User=bob
ExecStart=/usr/bin/python3 -I /mnt/thief.py 8081 334 335 8099
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def old_hub(machine: Machine, older: Path, installer: Path) -> Machine:
    """A release whose hub has the port that it had before: one that any account can take."""
    machine.copy_in(older, "/mnt/older.sh")
    machine.copy_in(installer, "/mnt/newer.sh")
    machine.succeed("sh", "/mnt/older.sh", "-b")
    machine.succeed("sed", "-i", "/hub_port/d; /traefik_api_url/d", f"{CONFIG}/10-install.py")
    machine.succeed("systemctl", "restart", PROXY)
    let_users_in(machine)
    machine.write("/mnt/thief.py", THIEF)
    machine.write("/etc/systemd/system/thief.service", UNIT)
    machine.succeed("systemctl", "enable", "--now", "thief.service")
    return machine


@pytest.fixture(scope="module")
def kernel(old_hub: Machine) -> Kernel:
    return kernel_of(old_hub, "alice")


def thief(hub: Machine) -> str:
    """What the thief has written down, since the machine was installed."""
    return hub.succeed("journalctl", "--no-pager", "--output=cat", "-u", "thief")


def hub_port(hub: Machine) -> str:
    pid = hub.unit(HUB, "MainPID")
    (port,) = re.findall(rf":(\d+) .*pid={pid},", hub.succeed("ss", "-Hltnp"))
    return port


def test_a_port_that_anybody_can_take_is_told_and_kept_while_servers_know_it(old_hub: Machine, kernel: Kernel) -> None:
    said = "any account can take the hub's port 8081 while the hub restarts"
    assert said in old_hub.succeed(BAREHUB, "status")
    old_hub.succeed("sh", "/mnt/older.sh", "-b")
    assert hub_port(old_hub) == "8081"
    assert kernel.execute("print(6 * 7)") == "42\n"


def test_an_upgrade_without_servers_moves_the_hub_and_the_thief_gets_nothing(old_hub: Machine, kernel: Kernel) -> None:
    assert kernel.session.stop_server().status_code == 204
    old_hub.write("/mnt/visitor.py", VISITOR)
    old_hub.succeed("systemd-run", "--unit=visitor", "/usr/bin/python3", "-I", "/mnt/visitor.py")
    output = old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-u")
    assert "the hub moves to http://127.0.0.1:334, where no other account can listen" in output
    assert hub_port(old_hub) == "334"
    assert "any account can take" not in old_hub.succeed(BAREHUB, "status")
    old_hub.eventually("sh", "-c", "journalctl -u thief --output=cat | grep -q 'took 8081'")
    assert "got" not in thief(old_hub)


def test_no_restart_lets_anybody_in_between(old_hub: Machine) -> None:
    kernel = kernel_of(old_hub, "alice")
    for unit in (HUB, PROXY, HUB):
        old_hub.succeed("systemctl", "restart", unit)
        old_hub.eventually(BAREHUB, "status")
    old_hub.succeed("systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", HUB)
    old_hub.eventually("sh", "-c", f"{BAREHUB} status && test $(systemctl show -P NRestarts {HUB}) -ge 1")
    kernel.connect()  # the proxy's restart has closed its websocket
    assert kernel.execute("print(6 * 7)") == "42\n"
    old_hub.reboot()
    old_hub.eventually(BAREHUB, "status")
    alice = HubSession(old_hub, "alice")
    alice.login()
    alice.start_server()
    said = thief(old_hub)
    assert "cannot 334 EACCES" in said
    assert "cannot 335 EACCES" in said
    assert "got" not in said
    assert alice.stop_server().status_code == 204


def test_what_a_user_asks_for_does_nothing_to_a_terminal(old_hub: Machine) -> None:
    alice = HubSession(old_hub, "alice")
    alice.login()
    assert alice.get("/hub/api/users/%1b%5b31m%0d%0a").status_code == 404
    journal = old_hub.succeed("journalctl", "--no-pager", "--output=cat", "-u", HUB)
    assert r"user=\x1b[31m\r" in journal
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", journal)


# Whatever a kernel does with its own output, it has the server's, too.
FORGE = """\
import os

for fd in os.listdir("/proc/self/fd"):
    link = f"/proc/self/fd/{fd}"
    if os.path.lexists(link) and os.readlink(link) == os.readlink(f"/proc/{os.getppid()}/fd/1"):
        os.write(int(fd), b"[I JupyterHub] forged\\n")
"""


def test_a_notebook_neither_speaks_for_the_hub_nor_starves_it(old_hub: Machine) -> None:
    kernel = kernel_of(old_hub, "alice")
    kernel.execute(FORGE)
    old_hub.eventually("sh", "-c", f'journalctl -u {HUB} -t "alice\'s server" | grep forged')
    assert "forged" not in old_hub.succeed("journalctl", "--no-pager", "-u", HUB, "-t", "jupyterhub")
    assert kernel.execute("print(open('/proc/self/oom_score_adj').read())").strip() == "200"
    kernel.session.stop_server()


def test_who_is_in_the_hubs_place_is_named_and_gets_no_token(old_hub: Machine) -> None:
    old_hub.write(f"{CONFIG}/90-port.py", "c.JupyterHub.hub_port = 8081\n")  # which the thief has
    status = json.loads(old_hub.fails(BAREHUB, "status", "--json"))
    assert "bob listens at http://127.0.0.1:8081/hub/health, in the place of the hub" in status["problems"]
    assert status["hub"] is None
    old_hub.fails("sh", "/mnt/newer.sh", "-b", "-f", code=7)
    assert "token" not in thief(old_hub)
    old_hub.succeed("rm", f"{CONFIG}/90-port.py")
    old_hub.succeed("sh", "/mnt/newer.sh", "-b", "-f")
    assert hub_port(old_hub) == "334"


def test_a_hub_without_privileges_has_such_a_port_too(old_hub: Machine) -> None:
    old_hub.succeed("useradd", "--system", "hub")
    old_hub.succeed("sh", "/mnt/newer.sh", "-b", "--hub-user", "hub")
    old_hub.succeed(BAREHUB, "status")
    assert hub_port(old_hub) == "334"
    assert old_hub.unit(HUB, "NoNewPrivileges") == "no"  # its sudo works
    old_hub.succeed("systemctl", "restart", HUB)
    old_hub.eventually(BAREHUB, "status")
