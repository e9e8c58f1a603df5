"""A site's LDAP directory in a machine, as the overlay's example has it: two servers with the same people."""

import base64
import contextlib
from collections.abc import Iterator

from tests.machines import authority
from tests.machines.machine import Machine

HOME = "/srv/ldap"
CA = "/etc/ssl/certs/site-ca.pem"
BASE = "dc=example,dc=org"
SERVERS = {"127.0.0.1": "ldap1.example.org", "127.0.0.2": "ldap2.example.org"}
HUB_DN, HUB_PASSWORD = f"cn=hub,ou=services,{BASE}", "the hub's own"
USERS_GROUP, POSIX_GROUP, ADMINS_GROUP, INSTITUTE, LAB = (
    f"cn={name},ou=groups,{BASE}" for name in ("hpc-users", "posix", "hpc-admins", "institute", "lab")
)

# Not those that PAM knows.
PASSWORDS = {"alice": "looking glass", "bob": "can we fix it", "Grace": "Hopper €\N{SOFT HYPHEN}", "root": "toor"}
ACCOUNT = "carol"  # of SSSD's; the machine itself has none of this name
PASSWORDS[ACCOUNT] = "a christmas"
# What means something to LDAP, in a filter or in a name.
ODD = (
    "dom\\ada",
    "ada@example.org",
    "a,b",
    "a*b",
    "(x)",
    "*",
    "*)(uid=*",
    "über",
    "#1",
    "a+b=c",
    'a"b',
    "{0}",
    "{x}%s",
)
PASSWORDS |= {name: f"secret of {name}" for name in ODD}

CONF = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/dyngroup.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload dynlist
TLSCertificateFile {home}/server.pem
TLSCertificateKeyFile {home}/server.key
# Passwords only over TLS. As Active Directory does, a bind without a password succeeds as nobody.
security simple_bind=128
allow bind_anon_cred
database mdb
suffix {base}
directory {home}/{server}
# `memberOf` of people, with groups in groups: slapo-dynlist(5).
overlay dynlist
dynlist-attrset groupOfURLs memberURL member+memberOf@groupOfNames*
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""


def start(machine: Machine) -> None:
    """Start both servers, and wait until they answer."""
    ca = authority.authority("Site Authority")
    pair = authority.issue(ca, *SERVERS.values())
    machine.write(CA, ca.cert)
    for name, text in (("server.pem", pair.cert), ("server.key", pair.key), ("data", entries())):
        machine.write(f"{HOME}/{name}", text)
    names = ["127.0.0.1 localhost\n", *(f"{address} {name}\n" for address, name in SERVERS.items())]
    machine.write("/etc/hosts", "".join(names))
    for server in SERVERS:
        conf = f"{HOME}/{server}.conf"
        machine.write(conf, CONF.format(home=HOME, base=BASE, server=server))
        machine.succeed("mkdir", f"{HOME}/{server}")
        machine.succeed("slapadd", "-f", conf, "-l", f"{HOME}/data")
        urls = f"ldap://{server}/ ldaps://{server}/"
        machine.succeed("systemd-run", f"--unit={unit(server)}", "slapd", "-d", "0", "-f", conf, "-h", urls)
    for server in SERVERS:
        machine.eventually("ldapsearch", "-x", "-H", f"ldap://{server}", "-s", "base", "-b", "")


def unit(server: str) -> str:
    return f"ldap-{server}.service"


@contextlib.contextmanager
def without(machine: Machine, server: str) -> Iterator[None]:
    """One of the servers accepts connections, and answers nothing."""
    machine.succeed("systemctl", "kill", "--signal=STOP", unit(server))
    try:
        yield
    finally:
        machine.succeed("systemctl", "kill", "--signal=CONT", unit(server))


def person_dn(name: str) -> str:
    """The DN of a person, each character that could mean something escaped (RFC 4514, 2.4)."""
    return f"uid={''.join(f'{chr(92)}{byte:02x}' for byte in name.encode())},ou=people,{BASE}"


def entries() -> str:
    """The whole directory as LDIF (RFC 2849), values in base64."""
    found = [entry(BASE, "dcObject organization", o=["Site"], dc=["example"])]
    found += [entry(f"ou={ou},{BASE}", "organizationalUnit", ou=[ou]) for ou in ("people", "groups", "services")]
    found += [
        entry(HUB_DN, "applicationProcess simpleSecurityObject", cn=["hub"], userPassword=[HUB_PASSWORD]),
        entry(USERS_GROUP, "groupOfNames", cn=["hpc-users"], member=[person_dn(name) for name in ("alice", *ODD)]),
        entry(ADMINS_GROUP, "groupOfNames", cn=["hpc-admins"], member=[person_dn("Grace")]),
        entry(LAB, "groupOfNames", cn=["lab"], member=[person_dn("alice")]),
        entry(INSTITUTE, "groupOfNames", cn=["institute"], member=[LAB]),
        entry(POSIX_GROUP, "posixGroup", cn=["posix"], gidNumber=["5000"], memberUid=["bob", ACCOUNT]),
    ]
    for number, (name, password) in enumerate(PASSWORDS.items()):
        more = {"sn": ["x"], "cn": ["x"], "mail": [f"mail{number}@example.org"]}
        classes = "inetOrgPerson"
        if name == ACCOUNT:
            classes += " posixAccount"
            more |= {"uidNumber": ["5001"], "gidNumber": ["5000"], "homeDirectory": [f"/home/{name}"]}
            more |= {"loginShell": ["/bin/bash"]}
        found.append(entry(person_dn(name), classes, uid=[name], userPassword=[password], **more))
    return "\n".join(found)


def entry(dn: str, classes: str, **attributes: list[str]) -> str:
    pairs = [("dn", dn), *(("objectClass", one) for one in classes.split())]
    pairs += [(name, value) for name, values in attributes.items() for value in values]
    return "".join(f"{name}:: {base64.b64encode(value.encode()).decode()}\n" for name, value in pairs)
