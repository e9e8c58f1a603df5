"""What a certificate says: its names, its issuer, how long it lasts, and whether browsers will accept it.

Nothing here is written, and the cryptography package is imported only when it is needed: a restart of the proxy and a
check every minute should cost little.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from barehub import untrusted
from barehub.errors import UserError
from barehub.untrusted import UntrustedError
from barehub.urls import is_address

if TYPE_CHECKING:
    from cryptography import x509

# Of Debian and Ubuntu; of Enterprise Linux, openEuler and Amazon Linux; of Leap and SLES; what others link to.
AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
TRAEFIKS_OWN = "TRAEFIK DEFAULT CERT"  # the name on the certificate that traefik makes where it has no other


def examine(cert: bytes, key: bytes, names: Sequence[str]) -> tuple[str, datetime, list[str]]:
    """Check a PEM certificate with its chain and a PEM key.

    Returns both as one text, when the certificate ends, and what browsers will complain about: it has expired or is
    not valid yet, names that it does not cover, a chain with holes. Raises UserError if it is no pair.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

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

    leaf, own = chain[0], private.public_key()
    if leaf.public_key() != own:
        what = "the key in ssl_key is not that of the first certificate in ssl_cert"
        if any(one.public_key() == own for one in chain[1:]):
            raise UserError(what, "put the server's certificate before its issuers'")
        raise UserError(what, "give both of the same renewal")
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in chain)
    text += private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text, leaf.not_valid_after_utc, complaints(chain, names)


def complaints(chain: Sequence["x509.Certificate"], names: Sequence[str]) -> list[str]:
    """Return what browsers will complain about, for a certificate with its chain and the names that people use."""
    leaf, warnings = chain[0], []
    if leaf.not_valid_after_utc <= now():
        warnings.append(f"the certificate has expired on {day(leaf.not_valid_after_utc)}: renew it")
    if leaf.not_valid_before_utc > now():
        warnings.append(f"the certificate is not valid before {day(leaf.not_valid_before_utc)}: see `date`")
    if missing := [name for name in names if not matches(name, names_of(leaf))]:
        warnings.append(f"the certificate is not for {', '.join(missing)}, but for {', '.join(names_of(leaf))}")
    if hole := hole_in(chain):
        warnings.append(hole)
    return warnings


def names_of(certificate: "x509.Certificate") -> list[str]:
    """Return the DNS names and addresses that a certificate is for. The common name has not counted for years."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def matches(name: str, names: Iterable[str]) -> bool:
    """Return True if a certificate with these names is for this host name or address (RFC 9525, section 6.3)."""
    if is_address(name):
        return name in names
    wildcard = f"*.{name.partition('.')[2]}".lower()
    return any(one.lower() in (name.lower(), wildcard) for one in names)


def hole_in(chain: Sequence["x509.Certificate"]) -> str | None:
    """Return what is missing between the first certificate and an authority that this machine trusts; else None."""
    import ssl

    from cryptography.exceptions import InvalidSignature

    for one, issuer in itertools.pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            follows = common_name(issuer.subject)
            return f"the chain is broken: {common_name(one.subject)} is not issued by {follows}, which follows it"
    last = chain[-1]
    if last.issuer == last.subject:
        return None  # an authority of the site's own, or self-signed
    find_authorities()
    issuer_name = last.issuer.public_bytes()  # DER, as it stands in the authority's certificate
    if any(issuer_name in one for one in ssl.create_default_context().get_ca_certs(binary_form=True)):
        return None
    return (
        f"the chain ends with {common_name(last.issuer)}, which is neither in ssl_cert nor known to this machine: "
        "if that is an intermediate authority, put its certificate into ssl_cert, after the server's"
    )


def find_authorities() -> None:
    """Tell OpenSSL where this machine keeps the certificate authorities that it trusts.

    The shipped OpenSSL searches where its build machine had them.
    """
    import ssl

    if "SSL_CERT_FILE" in os.environ or Path(ssl.get_default_verify_paths().openssl_cafile).exists():
        return
    for bundle in AUTHORITIES:
        if Path(bundle).exists():
            os.environ["SSL_CERT_FILE"] = bundle
            return


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
        return cls(names_of(leaf), common_name(leaf.issuer), leaf.not_valid_before_utc, leaf.not_valid_after_utc)

    @property
    def is_traefiks_own(self) -> bool:
        """True for the one that traefik makes where it has no other."""
        return self.issuer == TRAEFIKS_OWN

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


def common_name(name: "x509.Name") -> str:
    """Return the common name of a subject or issuer; all of it if it has none."""
    from cryptography.x509.oid import NameOID

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "(no name)"


def expiry_of(path: Path) -> datetime | None:
    """Return when the first certificate in a PEM file ends; None if the file is missing or cannot be used."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(untrusted.read_bytes(path))[0].not_valid_after_utc
    except (OSError, ValueError, UntrustedError):
        return None


def leaf_of(pem: str) -> bytes | None:
    """Return the first certificate of a PEM text, as DER; None if there is none."""
    import ssl

    text, end, _ = pem.partition(ssl.PEM_FOOTER)
    try:
        return ssl.PEM_cert_to_DER_cert(text[text.index(ssl.PEM_HEADER) :] + end)
    except ValueError:
        return None


def now() -> datetime:
    return datetime.now(UTC)


def day(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"
