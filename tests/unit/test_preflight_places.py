"""What the installer refuses of addresses that are taken, and of directories that other accounts cannot enter."""

import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

CONSTRUCT = Path(__file__).parents[2] / "construct"


def listens(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, dualstack_ipv6=host.startswith("::") and host != "::1")


def check(host: str, port: int, scheme: str = "http") -> int:
    """The exit status of the check alone: 0, or 8 for an address that is taken."""
    script = f"""set -eu
    die() {{ exit "$1"; }}
    {(CONSTRUCT / "ports.sh").read_text()}
    base=/nowhere scheme={scheme}
    check_port '{host}' {port} ''"""
    return subprocess.run(["sh", "-c", script], check=False).returncode


# What listens -> the hosts of bind_url that it is in the way of, and those that it is not.
TAKEN = {
    "127.0.0.2": (("127.0.0.2", "", "*", "[::]", "0.0.0.0"), ("127.0.0.1", "[::1]", "127.0.0.20", "[2001:db8::2]")),
    "0.0.0.0": (("127.0.0.1", "", "0.0.0.0", "[::]", "localhost"), ("[::1]", "[2001:db8::2]")),
    "::": (("127.0.0.1", "", "0.0.0.0", "[::]", "[::1]", "[2001:DB8::2]"), ()),
    "::1": (("[::1]", "[0:0:0:0:0:0:0:1]", "", "[::]", "*"), ("127.0.0.1", "0.0.0.0", "[2001:db8::1]", "[1::]")),
    "::ffff:127.0.0.3": (("127.0.0.3", "", "0.0.0.0"), ("127.0.0.1", "[::1]")),
}


@pytest.mark.parametrize("there", TAKEN)
def test_only_what_listens_at_the_same_address_and_port_is_in_the_way(there: str) -> None:
    taken, free = TAKEN[there]
    with listens(there) as server:
        port = server.getsockname()[1]
        assert {host: check(host, port) for host in taken} == dict.fromkeys(taken, 8)
        assert {host: check(host, port) for host in free} == dict.fromkeys(free, 0)
        assert check("hub.example.org", port, scheme="https") == 8  # all addresses


def test_a_directory_that_nobody_else_can_enter_is_named_and_base_itself_is_not() -> None:
    """As root on a machine with systemd, whoever runs the test."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        check_ways(Path(directory))


def check_ways(top: Path) -> None:
    base = top / "closed/inner/base"
    base.mkdir(parents=True)
    script = f"""set -eu
    {(CONSTRUCT / "preflight.sh").read_text()}
    die() {{ echo "$2"; exit "$1"; }}
    systemd_runs() {{ :; }}
    id() {{ echo 0; }}
    hooks=yes elsewhere='' base={base}
    check_way "$base"
    check_way "${{base%/*}}" """

    def tried() -> tuple[int, str]:
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.partition(" ")[0]

    base.chmod(0o700)
    assert tried() == (0, "")
    (top / "closed").chmod(0o750)
    assert tried() == (6, str(top / "closed"))
    (top / "closed").chmod(0o711)
    assert tried() == (0, "")
