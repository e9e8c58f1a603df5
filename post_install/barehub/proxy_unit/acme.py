"""Certificates from an ACME server (RFC 8555): traefik's configuration for it, and the store of what it has got."""

import contextlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from barehub import untrusted
from barehub.config import ConfigError
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.proxy_unit.certificates import day
from barehub.untrusted import UntrustedError

REDIRECT = "redirect"  # the entrypoint of HTTP, where HTTPS is served
SETTLED = 10  # seconds after which traefik has finished writing a store, which it does in place
DOMAIN = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*", re.IGNORECASE)

Config = dict[str, Any]


def resolver(layout: Layout, proxy: Any) -> tuple[str, Config]:
    """Return the certificate resolver for the traits of a BarehubProxy: its name and its configuration.

    https://doc.traefik.io/traefik/reference/install-configuration/tls/certificate-resolvers/acme/
    Raises ConfigError where they cannot work.
    """
    if not proxy.acme_domains:
        raise ConfigError(
            "ACME needs a host name",
            'c.JupyterHub.bind_url = "https://hub.example.org", or c.BarehubProxy.acme_domains',
        )
    if wrong := [name for name in proxy.acme_domains if not DOMAIN.fullmatch(name)]:
        raise ConfigError(f"acme_domains: {wrong[0]!r} is not a domain name", "use names like hub.example.org")
    wildcard = next((name for name in proxy.acme_domains if name.startswith("*")), None)
    if wildcard and proxy.acme_challenge != "dns-01":
        raise ConfigError(
            f"acme_domains: {wildcard} needs the challenge dns-01", "set c.BarehubProxy.acme_dns_provider"
        )
    server = urlsplit(proxy.acme_ca_server)
    if server.scheme != "https" or not server.hostname:
        raise ConfigError(f"acme_ca_server: {proxy.acme_ca_server!r} is not an https URL", "give its directory's URL")
    config: Config = {
        "email": proxy.acme_email,
        "caServer": proxy.acme_ca_server,
        "storage": str(layout.acme_store),
        "keyType": proxy.acme_key_type,
        "certificatesDuration": proxy.acme_certificate_hours,
    }
    if proxy.acme_ca_bundle:
        config["caCertificates"] = [str(layout.acme_bundle)]
    if proxy.acme_challenge == "dns-01":
        if not proxy.acme_dns_provider:
            raise ConfigError("the challenge dns-01 needs a provider", "set c.BarehubProxy.acme_dns_provider")
        config["dnsChallenge"] = {"provider": proxy.acme_dns_provider, "resolvers": list(proxy.acme_dns_resolvers)}
    elif proxy.acme_challenge == "http-01":
        if not proxy.http_redirect_port:
            raise ConfigError("the challenge http-01 needs HTTP", "c.BarehubProxy.http_redirect_port = 80")
        config["httpChallenge"] = {"entryPoint": REDIRECT}
    else:
        config["tlsChallenge"] = {}
    # Named after the server, as its part of traefik's store is: a staging server's certificates stay apart.
    name = re.sub(r"[^a-z0-9]+", "-", server.netloc.lower())
    return name, {"acme": config}


def copy_bundle(layout: Layout, path: str) -> None:
    """Copy the ACME server's authorities to where the proxy can read them. Raises UserError if there are none."""
    from cryptography import x509

    fix = "set c.BarehubProxy.acme_ca_bundle to a PEM file of the server's authorities"
    try:
        text = untrusted.read_bytes(Path(path), follow=True).decode()
        x509.load_pem_x509_certificates(text.encode())
    except FileNotFoundError as error:
        raise UserError(f"acme_ca_bundle: {path}: {error.strerror}", fix) from error
    except UntrustedError as error:
        raise UserError(f"acme_ca_bundle: {error}", f"{error.fix}; or {fix}") from error
    except ValueError as error:
        raise UserError(f"acme_ca_bundle: {path} holds no PEM certificates, or damaged ones", fix) from error
    write_atomically(layout.acme_bundle, text, 0o640, (-1, layout.proxy_state.stat().st_gid))


def check_environment(layout: Layout) -> list[str]:
    """Return what is wrong with the file of the DNS provider's credentials."""
    try:
        found = layout.acme_environment.stat()
    except FileNotFoundError:
        return []
    if found.st_mode & 0o077 or found.st_uid not in (0, os.geteuid()):
        path = layout.acme_environment
        return [f"{path} is not root's alone: chown root {path}; chmod 600 {path}; and consider new credentials"]
    return []


# The store: {resolver: {"Account": {...}, "Certificates": [...] or null}} (traefik, pkg/provider/acme/local_store.go).
# Its directory is the proxy's, so nothing there is followed or trusted; the copy is in a directory that root owns.


def keep_store(layout: Layout, *, running: bool) -> list[str]:
    """Copy a valid store, and restore a damaged one from its copy; return what was wrong.

    `running` means that traefik may be writing it at this moment. traefik ignores a store that others can read, and
    replaces one that it cannot parse, without a certificate until it gets a new one. A missing store is one that an
    administrator has removed to get new certificates.
    """
    directory = os.open(layout.acme, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return _keep_store(layout, directory, running)
    except UntrustedError as error:
        return [f"{error}: put the store itself there, or nothing; then restart the proxy"]
    except OSError as error:  # the proxy's account can put anything there, and must not keep the proxy from starting
        return [f"{layout.acme}: {error}"]
    finally:
        os.close(directory)


def _keep_store(layout: Layout, directory: int, running: bool) -> list[str]:
    path, owner, said = layout.acme_store, os.fstat(directory), []
    try:
        with untrusted.opened(path, directory=directory) as descriptor:
            found = os.fstat(descriptor)
            if (found.st_mode & 0o777, found.st_uid) != (0o600, owner.st_uid):
                os.fchmod(descriptor, 0o600)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
                said.append(f"{path} had mode {found.st_mode & 0o777:o}, or an owner other than the proxy; fixed")
            text = untrusted.content_of(descriptor, path).decode(errors="replace")
    except FileNotFoundError:
        layout.acme_copy.unlink(missing_ok=True)
        return []
    if not text and not layout.acme_copy.exists():
        return said  # traefik has just made it, and no authority has answered yet
    if is_valid(text):
        write_atomically(layout.acme_copy, text, 0o600)
        return said
    if running and time.time() - found.st_mtime < SETTLED:
        return said
    if not layout.acme_copy.exists():
        os.rename(path.name, f"{path.name}.damaged", src_dir_fd=directory, dst_dir_fd=directory)
        return [*said, f"{path} was damaged and there is no copy; set aside, new certificates will be requested"]
    staged = f".{path.name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staged, dir_fd=directory)
    new = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    with open(new, "w") as file:
        os.fchown(new, owner.st_uid, owner.st_gid)
        file.write(layout.acme_copy.read_text())
        file.flush()
        os.fsync(new)
    os.rename(staged, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
    copied = datetime.fromtimestamp(layout.acme_copy.stat().st_mtime, UTC)
    return [*said, f"{path} was damaged; restored as of {day(copied)}"]


def stored_names(text: str, resolver: str) -> list[str]:
    """Return the host names of the certificates in a store that a resolver has got; none if it is damaged."""
    try:
        domains = [one["domain"] for one in json.loads(text)[resolver]["Certificates"] or []]
        return [name for domain in domains for name in (domain["main"], *(domain.get("sans") or []))]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def is_valid(text: str) -> bool:
    """Return True for a store with an account."""
    try:
        return any(entry["Account"] for entry in json.loads(text).values())
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return False
