"""Certificate files: root's copy for the proxy, checked before it replaces the one in use.

    python -m barehub.proxy_unit.renewal --renew         what the proxy's reload runs: copy renewed files
    python -m barehub.proxy_unit.renewal --watch UNIT    what the timer runs: reload UNIT if they have changed

The key is readable by root alone, so the proxy's account gets a copy, with the chain in one file: what traefik reads is
always a pair. Files that cannot be used never replace a copy that can.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from barehub import permissions, systemd, untrusted
from barehub.errors import UserError, render
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.proxy_unit.acme import keep_store
from barehub.proxy_unit.certificates import day, examine, expiry_of, now
from barehub.untrusted import UntrustedError


@dataclass(frozen=True)
class Source:
    """Where the certificate comes from: two files, or, without them, an ACME server; and the names that people use.

    `seen` is the hash of the files' content when they were last checked, whether they could be used or not.
    """

    cert: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    seen: str = ""

    @classmethod
    def load(cls, layout: Layout) -> "Source | None":
        """Return what the proxy was started with; None if it serves no HTTPS."""
        try:
            record = json.loads(layout.certificate_source.read_text())
            return cls(**record | {"names": tuple(record["names"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self, layout: Layout) -> None:
        write_atomically(layout.certificate_source, json.dumps(asdict(self)) + "\n", 0o600)

    def read(self) -> tuple[bytes, bytes]:
        """Return the content of both files. Raises UserError if they cannot be read."""
        content = []
        for trait, path in (("ssl_cert", self.cert), ("ssl_key", self.key)):
            elsewhere = f"c.JupyterHub.{trait} to another file"
            try:
                content.append(untrusted.read_bytes(Path(path), follow=True))  # certbot's are links
            except FileNotFoundError as error:
                raise UserError(f"{trait}: {path}: {error.strerror}", f"put it there, or set {elsewhere}") from error
            except UntrustedError as error:
                raise UserError(f"{trait}: {error}", f"{error.fix}; or set {elsewhere}") from error
        return content[0], content[1]

    @property
    def digest(self) -> str:
        """The hash of the files' content as it is now; empty if they cannot be read."""
        try:
            return hashlib.sha256(b"\0".join(self.read())).hexdigest()
        except UserError:
            return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m barehub.proxy_unit.renewal")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--renew", action="store_true")
    what.add_argument("--watch", metavar="UNIT")
    arguments = parser.parse_args(argv)
    layout = Layout.from_environment()
    source = Source.load(layout)
    if source is None:
        return 0
    try:
        for warning in watch(layout, source, arguments.watch) if arguments.watch else renew(layout, source):
            print(f"warning: {warning}", file=sys.stderr)
    except UserError as error:
        print(f"{render(error)}\nthe proxy goes on with the certificate it has", file=sys.stderr)
        return 1
    return 0


def watch(layout: Layout, source: Source, unit: str) -> list[str]:
    """Reload the proxy's unit if the certificate files have changed; return what was wrong with an ACME store."""
    if not source.cert:
        return keep_store(layout, running=True)
    if source.digest != source.seen:
        systemd.try_control("reload", unit)  # which says what is wrong
    return []


def renew(layout: Layout, source: Source) -> list[str]:
    """Copy the certificate files if they have changed; return what is worth a warning.

    Raises UserError, with the old copy in place, if they cannot be used.
    """
    if not source.cert:
        return []
    replace(source, seen=source.digest).save(layout)
    return copy_files(layout, source)


def copy_files(layout: Layout, source: Source) -> list[str]:
    """Make the proxy's copy what the certificate files are; as `renew`."""
    cert, key = source.read()
    text, ends, warnings = examine(cert, key, source.names)
    warnings += permissions.exposed_key(source.key)
    current = expiry_of(layout.certificate)
    if ends <= now() and current is not None and current > now():
        raise UserError(f"ssl_cert: {source.cert} has expired on {day(ends)}", "renew it; the copy in use has not")
    proxy = layout.acme.stat().st_uid  # of the installation's accounts, the proxy's owns this directory
    write_atomically(layout.certificate, text, 0o400, (proxy if os.geteuid() == 0 else -1, -1))
    return warnings


if __name__ == "__main__":
    sys.exit(main())
