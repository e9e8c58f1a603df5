"""SSSD on a machine with directory.py's servers, as the administrator's guide has it."""

import re

from tests.machines import directory
from tests.machines.directory import ACCOUNT
from tests.machines.machine import Machine
from tests.readme import ADMIN

SHORT, FULL = "use_fully_qualified_names = false", "use_fully_qualified_names = true"
DOMAIN = "domains = example\n"


def start(machine: Machine, names: str = SHORT) -> None:
    """Start it, with nothing in its cache; with FULL names, people need not type theirs."""
    [conf] = re.findall(r"^```ini\n(\[sssd\].*?)^```", ADMIN.read_text(), re.MULTILINE | re.DOTALL)
    assert SHORT in conf
    assert DOMAIN in conf
    conf = conf.replace("SECRET", directory.HUB_PASSWORD).replace(SHORT, names)
    if names == FULL:
        conf = conf.replace(DOMAIN, f"{DOMAIN}default_domain_suffix = example\n")
    machine.write("/etc/sssd/sssd.conf", conf, mode=0o600)
    # Debian would start once more, by their sockets, what the configuration starts.
    machine.shell(
        "rm -rf /etc/systemd/system/sssd.service.wants /var/lib/sss/db/* /var/lib/sss/mc/*;"
        " systemctl daemon-reload; systemctl restart sssd"
    )
    machine.eventually("getent", "passwd", f"{ACCOUNT}@example")
    machine.shell(f"test -d /home/{ACCOUNT} || install -d -o {ACCOUNT} /home/{ACCOUNT}")
