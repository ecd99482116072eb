"""An authority of the tests' own, which signs what it is told to; nobody else knows it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
LOCAL = "127.0.0.1"


class Authority:
    def __init__(self, folder: Path) -> None:
        """*folder* is where everything is written; ``self.file`` is its own certificate."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"authority {x509.random_serial_number()}")
        self.file = folder / "authority.pem"
        plain = x509.BasicConstraints(ca=True, path_length=None)
        self._write(self.file, self._certificate(self._name, self._key.public_key(), plain))

    def issue(self, *names: str, days: int = 1) -> Path:
        """A certificate with its key, in one file, for hosts or addresses; of the past if *days* is negative."""
        names, key = names or (LOCAL,), ec.generate_private_key(ec.SECP256R1())
        shown = [x509.IPAddress(ip_address(one)) if one[-1].isdigit() else x509.DNSName(one) for one in names]
        alternatives = x509.SubjectAlternativeName(shown)
        found = self._folder / f"{names[0]}-{days}.pem"
        self._write(found, self._certificate(_named(names[0]), key.public_key(), alternatives, days))
        secret = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        found.write_bytes(found.read_bytes() + key.private_bytes(*secret))
        return found

    def server(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """What a server with such a certificate listens with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(*names, days=days))
        return context

    def _certificate(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, says: x509.ExtensionType, days: int = 1
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        begin, end = sorted((now - 3 * DAY, now + days * DAY))
        return (
            x509.CertificateBuilder(self._name, name, key, x509.random_serial_number(), begin, end)
            .add_extension(says, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
