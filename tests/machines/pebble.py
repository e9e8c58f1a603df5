"""Pebble, an ACME server for tests (RFC 8555), and its DNS server, on a test machine."""

import json

from tests.machines.authority import Pair, issue
from tests.machines.machine import Machine

NAME = "acme.example.org"
DIRECTORY = f"https://{NAME}:14000/dir"
BUNDLE = "/etc/pebble/root.pem"
CONFIG = "/etc/pebble/config.json"
ADMIN = "http://127.0.0.1:8055"  # the DNS server's own API

# What traefik's provider `httpreq` asks, put into the words of the DNS server's API.
DNS_API = """
import http.server, json, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        verb = {"/present": "set-txt", "/cleanup": "clear-txt"}[self.path]
        told = json.dumps({"host": asked["fqdn"], "value": asked["value"]}).encode()
        urllib.request.urlopen("http://127.0.0.1:8055/" + verb, told).read()
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", 8056), Handler).serve_forever()
"""


def install_pebble(machine: Machine, issuer: Pair, *, seconds: int) -> None:
    """Start the ACME server, known by `issuer`; its certificates are valid for so many seconds."""
    own = issue(issuer, NAME)
    machine.write(BUNDLE, issuer.cert)
    machine.write("/etc/pebble/cert.pem", own.cert)
    machine.write("/etc/pebble/key.pem", own.key, 0o600)
    settings = {
        "listenAddress": "127.0.0.1:14000",
        "managementListenAddress": "127.0.0.1:15000",
        "certificate": "/etc/pebble/cert.pem",
        "privateKey": "/etc/pebble/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "certificateValidityPeriod": seconds,
    }
    machine.write(CONFIG, json.dumps({"pebble": settings}))
    machine.shell(f"echo 127.0.0.1 {NAME} >> /etc/hosts")
    machine.write("/etc/pebble/dns_api.py", DNS_API)
    dns = ("-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "")
    run(machine, "pebble-dns", "pebble-challtestsrv", *dns, "-dns01", "127.0.0.1:8053", "-management", "127.0.0.1:8055")
    run(machine, "pebble-dns-api", "python3", "/etc/pebble/dns_api.py")
    run(machine, "pebble", "pebble", "-config", CONFIG, "-dnsserver", "127.0.0.1:8053")
    for port in (8053, 8056, 14000, 15000):
        machine.eventually("python3", "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}))")


def run(machine: Machine, unit: str, *argv: str) -> None:
    # No pauses, and no refusals of good nonces, which it makes to see whether clients try again.
    settings = ("--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0")
    machine.succeed("systemd-run", f"--unit={unit}", *settings, *argv)
