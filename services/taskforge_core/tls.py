"""TLS of the servers: certificates that are read again when their files change.

gRPC asks for the files before each handshake, so what a rotation leaves on disk is served to the
next connection, and connections that are open stay. Files that make no sense (half written, a key
of another certificate) never replace what is served: the next look may find better. The server
looks every few seconds too, so that the log tells of them before a client does. A certificate whose
time is over, or has not come, is served, since clocks differ; the log tells of it.
"""

import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from taskforge_core.file_versions import FileVersion, version_of
from taskforge_core.settings import Settings

log = structlog.get_logger(__name__)

_Versions = dict[Path, FileVersion]

_BLOCK = re.compile(rb"-----BEGIN ([^\n-]+)-----.+?-----END \1-----", re.DOTALL)


class UnusableCertificate(Exception):
    """A file cannot be read, or is not what it should be; the message tells which in one line."""


class Certificates:
    """A server's certificate, its key, and the authorities of its clients, as files."""

    def __init__(self, certificate: Path, key: Path, authorities: Path | None) -> None:
        """Read the files.

        Raises:
            UnusableCertificate: They are not what they should be.
        """
        self._certificate = certificate
        self._key = key
        self._authorities = authorities
        self._lock = threading.Lock()
        # Looked at before they are read: a write in between is seen as a change.
        self._read_at = self._complained_of = self._versions()
        self._good = self._served = self._read()

    @classmethod
    def of(cls, settings: Settings) -> "Certificates | None":
        """Those that the settings name, if they name any.

        Raises:
            UnusableCertificate: There is nothing good to begin with.
        """
        if settings.tls_certificate is None or settings.tls_key is None:
            return None
        return cls(settings.tls_certificate, settings.tls_key, settings.tls_client_authorities)

    def credentials(self) -> grpc.ServerCredentials:
        """What a server listens with."""
        return grpc.dynamic_ssl_server_credentials(
            self._served,
            # The stubs do not know that None stands for no change.
            cast("Any", self._take_news),
            require_client_authentication=self._authorities is not None,
        )

    async def refresh(self) -> None:
        """Look whether files have changed, and tell what became of them; a pass of a loop."""
        with self._lock:
            self._look()

    def _take_news(self) -> grpc.ServerCertificateConfiguration | None:
        """What gRPC is to serve from now on; None for what it serves already.

        Called by gRPC's threads before each handshake; never raises.
        """
        with self._lock:
            self._look()
            if self._good is self._served:
                return None
            self._served = self._good
            return self._good

    def _look(self) -> None:
        versions = self._versions()
        if versions == self._read_at:
            return
        try:
            self._good = self._read()
        except UnusableCertificate as error:
            if versions != self._complained_of:
                self._complained_of = versions
                log.warning("certificate_unusable", why=str(error), serving="the last good one")
            return
        changed = [str(file) for file in versions if versions[file] != self._read_at[file]]
        self._read_at = versions
        log.info("certificate_reloaded", files=changed)

    def _versions(self) -> _Versions:
        files = (self._certificate, self._key, self._authorities)
        return {file: version_of(file) for file in files if file is not None}

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate = _bytes_of("tls_certificate", self._certificate)
        key = _bytes_of("tls_key", self._key)
        authorities = None
        if self._authorities is not None:
            authorities = _bytes_of("tls_client_authorities", self._authorities)
            _read_certificates("tls_client_authorities", self._authorities, authorities)
        chain = _read_certificates("tls_certificate", self._certificate, certificate)
        try:
            private = serialization.load_pem_private_key(key, password=None)
            belongs = _public_bytes(private) == _public_bytes(chain[0])
        except TypeError:
            raise UnusableCertificate(f"tls_key: {self._key} is encrypted") from None
        except (ValueError, UnsupportedAlgorithm):
            raise UnusableCertificate(f"tls_key: {self._key} holds no private key in PEM") from None
        if not belongs:
            raise UnusableCertificate(
                f"tls_key: {self._key} is not the key of the certificate {self._certificate}"
            )
        _warn_of_times(self._certificate, chain)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)


def _bytes_of(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnusableCertificate(f"{setting}: cannot read {file}: {error.strerror}") from None


def _read_certificates(setting: str, file: Path, data: bytes) -> list[x509.Certificate]:
    """All certificates of a file, which must be whole to the last."""
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        raise UnusableCertificate(f"{setting}: {file} holds no certificate in PEM") from None
    # The parser passes over a last block that is cut off.
    if b"-----" in _BLOCK.sub(b"", data):
        raise UnusableCertificate(f"{setting}: {file} is cut off, or no PEM throughout")
    return certificates


def _warn_of_times(file: Path, chain: list[x509.Certificate]) -> None:
    """Log which certificates of the chain clients will refuse because of the time."""
    now = datetime.now(UTC)
    for certificate in chain:
        told = {"file": str(file), "subject": certificate.subject.rfc4514_string()}
        if certificate.not_valid_after_utc < now:
            ended = certificate.not_valid_after_utc.isoformat()
            log.warning("certificate_expired", **told, ended=ended)
        elif certificate.not_valid_before_utc > now:
            begins = certificate.not_valid_before_utc.isoformat()
            log.warning("certificate_not_valid_yet", **told, begins=begins)


def _public_bytes(of: x509.Certificate | PrivateKeyTypes) -> bytes:
    return of.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
