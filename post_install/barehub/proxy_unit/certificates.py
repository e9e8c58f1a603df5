"""The certificate that the proxy serves: root's copy of the administrator's files, checked before it is taken.

    python -m barehub.proxy_unit.certificates --renew         what the proxy's reload runs: take renewed files
    python -m barehub.proxy_unit.certificates --watch UNIT    what the timer runs: reload UNIT if they have changed

The key is for root, so the proxy's account gets a copy, with the chain in one file: what traefik reads is always a
pair. Files that cannot be used never replace a copy that can.
"""

import argparse
import hashlib
import itertools
import json
import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from barehub.errors import UserError
from barehub.layout import Layout
from barehub.process import attempt, write_atomically
from barehub.urls import is_address

AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")


@dataclass(frozen=True)
class Source:
    """Where the certificate comes from: two files, or, without them, an ACME server; and the names that people use.

    `seen` is the hash of the files' content when they were last looked at, for good or bad.
    """

    cert: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    seen: str = ""

    @classmethod
    def load(cls, layout: Layout) -> "Source | None":
        """What the proxy was started with; None if it serves no HTTPS."""
        try:
            record = json.loads(layout.certificate_source.read_text())
            return cls(**record | {"names": tuple(record["names"])})
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self, layout: Layout) -> None:
        write_atomically(layout.certificate_source, json.dumps(asdict(self)) + "\n", 0o600)

    def read(self) -> tuple[bytes, bytes]:
        """The content of both files. Raises UserError if they cannot be read."""
        content = []
        for trait, path in (("ssl_cert", self.cert), ("ssl_key", self.key)):
            try:
                content.append(Path(path).read_bytes())
            except OSError as error:
                raise UserError(f"{trait}: {path}: {error.strerror}", f"mend it, or c.JupyterHub.{trait}") from error
        return content[0], content[1]

    @property
    def digest(self) -> str:
        """Of the files' content as it is now; of nothing where that cannot be read."""
        try:
            return hashlib.sha256(b"\0".join(self.read())).hexdigest()
        except UserError:
            return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m barehub.proxy_unit.certificates")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--renew", action="store_true")
    what.add_argument("--watch", metavar="UNIT")
    arguments = parser.parse_args(argv)
    layout = Layout.from_environment()
    source = Source.load(layout)
    if source is None:
        return 0
    if arguments.watch:
        watch(layout, source, arguments.watch)
        return 0
    try:
        for warning in renew(layout, source):
            print(f"warning: {warning}", file=sys.stderr)
    except UserError as error:
        print(f"error: {error}\n  fix: {error.fix}\nthe proxy goes on with the certificate it has", file=sys.stderr)
        return 1
    return 0


def watch(layout: Layout, source: Source, unit: str) -> None:
    """Have the proxy's unit reloaded if the files are other ones than those that were last looked at."""
    from barehub.proxy_unit.acme import keep_store

    if source.cert and source.digest != source.seen:
        attempt("systemctl", "reload", unit)  # which says what is wrong
    if not source.cert:
        for line in keep_store(layout, running=True):
            print(f"warning: {line}", file=sys.stderr)


def renew(layout: Layout, source: Source) -> list[str]:
    """Take the files if they are new; return what is worth a warning.

    Raises UserError, with the old copy in place, if they cannot be used.
    """
    if not source.cert:
        return []
    Source(source.cert, source.key, source.names, source.digest).save(layout)
    return take(layout, source)


def take(layout: Layout, source: Source) -> list[str]:
    """Have the proxy's copy be what the files are; return what is worth a warning. Raises UserError; see `renew`."""
    cert, key = source.read()
    text, ends, warnings = examine(cert, key, source.names)
    current = expiry(layout)
    if ends <= now() and current is not None and current > now():
        raise UserError(f"ssl_cert: {source.cert} has expired on {day(ends)}", "renew it; the copy in use has not")
    if Path(source.key).stat().st_mode & 0o004:
        warnings.append(f"everybody can read {source.key}: chmod 600 it, and think about a new key")
    proxy = layout.acme.stat().st_uid  # of the installation's accounts it is the proxy's directory
    write_atomically(layout.certificate, text, 0o400, (proxy if os.geteuid() == 0 else -1, -1))
    return warnings


def examine(cert: bytes, key: bytes, names: Sequence[str]) -> tuple[str, datetime, list[str]]:
    """Look at a PEM certificate with its chain and a PEM key.

    Returns both as one text, when the certificate ends, and what browsers will complain about: it has expired or is
    not valid yet, names that it does not cover, a chain with holes. Raises UserError if it is no pair.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        chain = x509.load_pem_x509_certificates(cert)
    except ValueError as error:
        raise UserError("ssl_cert holds no PEM certificate, or a damaged one", "openssl x509 -text -in it") from error
    try:
        private = load_pem_private_key(key, None)
    except TypeError as error:
        raise UserError("ssl_key is encrypted", "decrypt it: openssl pkey -in it -out another") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError("ssl_key holds no PEM private key, or a damaged one", "openssl pkey -text -in it") from error

    def public(one: object) -> bytes:
        return one.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    leaf = chain[0]
    if public(leaf) != public(private):
        what = "the key in ssl_key is not that of the first certificate in ssl_cert"
        if any(public(one) == public(private) for one in chain[1:]):
            raise UserError(what, "put the server's certificate before its issuers'")
        raise UserError(what, "give both of the same renewal")
    ends, warnings = leaf.not_valid_after_utc, []
    if ends <= now():
        warnings.append(f"the certificate has expired on {day(ends)}: renew it")
    if leaf.not_valid_before_utc > now():
        warnings.append(f"the certificate is not valid before {day(leaf.not_valid_before_utc)}: see `date`")
    if missing := [name for name in names if not covers(leaf, name)]:
        warnings.append(f"the certificate is not for {', '.join(missing)}, but for {', '.join(names_of(leaf))}")
    if hole := hole_in(chain):
        warnings.append(hole)
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in chain)
    text += private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text, ends, warnings


def names_of(certificate: object) -> list[str]:
    """The DNS names and addresses that a certificate is for. The common name has not counted for years."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def covers(certificate: object, name: str) -> bool:
    """True if the certificate is for this host name or address (RFC 9525, section 6.3)."""
    found = names_of(certificate)
    if is_address(name):
        return name in found
    wildcard = f"*.{name.partition('.')[2]}".lower()
    return any(one.lower() in (name.lower(), wildcard) for one in found)


def hole_in(chain: Sequence[object]) -> str | None:
    """What is missing between the first certificate and an authority that this machine knows; None if nothing is."""
    from cryptography.exceptions import InvalidSignature

    for one, issuer in itertools.pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            follows = spoken(issuer.subject)
            return f"the chain is broken: {spoken(one.subject)} is not issued by {follows}, which follows it"
    last = chain[-1]
    if last.issuer == last.subject:
        return None  # an authority of the site's own, or self-signed
    find_authorities()
    issuer = last.issuer.public_bytes()  # DER, as it stands in the authority's certificate
    if any(issuer in one for one in ssl.create_default_context().get_ca_certs(binary_form=True)):
        return None
    return (
        f"the chain ends with {spoken(last.issuer)}, which is neither in ssl_cert nor known to this machine: "
        "if that is an intermediate authority, put its certificate into ssl_cert, after the server's"
    )


@dataclass(frozen=True)
class Served:
    """A certificate as the proxy shows it."""

    names: list[str]
    issuer: str
    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, der: bytes) -> "Served":
        from cryptography import x509

        leaf = x509.load_der_x509_certificate(der)
        return cls(names_of(leaf), spoken(leaf.issuer), leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    @property
    def is_traefiks_own(self) -> bool:
        """True for what traefik makes itself where it has nothing better."""
        return self.issuer == "TRAEFIK DEFAULT CERT"

    @property
    def lifetime(self) -> timedelta:
        return self.ends - self.begins

    @property
    def left(self) -> timedelta:
        return self.ends - now()

    @property
    def late(self) -> timedelta:
        """With so little left it should have been renewed."""
        return min(self.lifetime / 6, timedelta(days=14))

    def __str__(self) -> str:
        hours = max(0, round(self.left / timedelta(hours=1)))
        left = f"{hours} h" if hours < 48 else f"{self.left.days} days"
        return f"{', '.join(self.names) or 'no name'}, by {self.issuer}, until {day(self.ends)} ({left})"


def find_authorities() -> None:
    """Have OpenSSL know the certificate authorities that this machine trusts.

    The shipped one looks for them where its build machine had them.
    """
    if "SSL_CERT_FILE" in os.environ or Path(ssl.get_default_verify_paths().openssl_cafile).exists():
        return
    for bundle in AUTHORITIES:
        if Path(bundle).exists():
            os.environ["SSL_CERT_FILE"] = bundle
            return


def spoken(name: object) -> str:
    """A subject or issuer, by its common name where it has one."""
    from cryptography.x509.oid import NameOID

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "(no name)"


def expiry(layout: Layout) -> datetime | None:
    """When the proxy's copy ends; None if there is none that can be used."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(layout.certificate.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError):
        return None


def now() -> datetime:
    return datetime.now(UTC)


def day(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


if __name__ == "__main__":
    sys.exit(main())
