"""A certificate authority for tests."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def cert(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def key(self) -> str:
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def serial(self) -> int:
        return self.certificate.serial_number


def authority(name: str = "Test Authority", issuer: Pair | None = None) -> Pair:
    """A root, or an intermediate authority below `issuer`."""
    return make(name, issuer, [x509.BasicConstraints(ca=True, path_length=None)])


def issue(issuer: Pair, *names: str, days: float = 90, since: float = 1) -> Pair:
    """A server's certificate for host names and addresses, valid for `days` from `since` days ago."""
    found = x509.SubjectAlternativeName([general(name) for name in names])
    return make(names[0], issuer, [found, x509.BasicConstraints(ca=False, path_length=None)], days, since)


def general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def make(
    name: str, issuer: Pair | None, extensions: list[x509.ExtensionType], days: float = 90, since: float = 1
) -> Pair:
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = datetime.now(UTC) - timedelta(days=since)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return Pair(builder.sign(issuer.private if issuer else private, hashes.SHA256()), private)
