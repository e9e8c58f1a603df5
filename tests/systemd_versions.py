"""What post_install/SYSTEMD.md says of old versions of systemd, for the tests that hold it against the units."""

import re

from barehub import systemd

from tests.readme import ROOT

DOCUMENT = ROOT / "post_install/SYSTEMD.md"
OLD = (239, 242, 243, 244, 245, 247, 248)  # a version in which a directive of the units came
# The highest exposure of each service where systemd ignores nothing: post_install/README.md, "The hub's sandbox".
MOST = {"proxy": 1.2, "hub": 6.7, "certificates": 1.7}
VALUES = {
    "NAME": "barehub",
    "BASE": "/opt/barehub",
    "HUB_USER": "root",
    "PROXY_USER": "www-data",
    "IF_ROOT": "",
    "IF_USER": "# root can do that: ",
}


def since() -> dict[str, int]:
    """Return the version that brought each directive which 239 does not know, by the document's first table."""
    rows = re.findall(r"^\| (`[^|]+=`) \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: int(version) for names, version in rows for name in re.findall(r"`(\w+)=`", names)}


def exposures() -> dict[tuple[str, int], str]:
    """Return the exposure of each service by version, by the document's second table."""
    rows = re.findall(r"^\| (\d+) \|((?: \d\.\d \|){3})$", DOCUMENT.read_text(), re.MULTILINE)
    services = ("proxy", "certificates", "hub")
    return {
        (service, int(version)): figure
        for version, figures in rows
        for service, figure in zip(services, re.findall(r"\d\.\d", figures), strict=True)
    }


def exposure(analysis: str) -> str:
    """Return the figure in the last line of `systemd-analyze security`."""
    match = re.search(r"exposure level for \S+: (\d+\.\d)", analysis)
    assert match, analysis
    return match[1]


def service(name: str, version: int) -> str:
    """Return the unit of a service without the directives that a version of systemd ignores."""
    text = systemd.render((systemd.TEMPLATES / f"{name}.service").read_text(), **VALUES)
    ignored = {directive for directive, first in since().items() if first > version}
    return "".join(line for line in text.splitlines(keepends=True) if line.partition("=")[0] not in ignored)
