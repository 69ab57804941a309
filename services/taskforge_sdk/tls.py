"""TLS of clients and workers: files of PEM, which are read again when they change."""

import logging
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

_LOOK_INTERVAL: Final = 1.0
"""Seconds for which the files are taken to be as they were."""

_Version = tuple[tuple[int, int, int] | None, ...]

logger = logging.getLogger("taskforge.tls")


@dataclass(frozen=True, slots=True)
class Tls:
    """Connect over TLS.

    `authorities`: a bundle of the CA certificates that servers' certificates must be signed by;
    None: the public ones that come with gRPC. `certificate` and `key`: what is shown to servers
    that ask for a client's certificate (mTLS); the key must not be encrypted. All are paths of PEM
    files. They are read again when they change, for new connections: calls that are under way end
    on the old ones. Files that make no sense keep those that did, and a warning is logged.
    """

    authorities: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: certificate and key go together")


class Security:
    """What channels are opened with: plaintext, or TLS by the files as they are now."""

    def __init__(self, tls: Tls | None) -> None:
        """Read the files; raises ValueError where they cannot be used."""
        self.credentials: grpc.ChannelCredentials | None = None
        self._tls = tls
        self._generation = 0
        self._looked_at = time.monotonic()
        self._version: _Version = ()
        if tls is not None:
            self._version = _version_of(tls)
            self.credentials = _read(tls)

    def generation(self) -> int:
        """Changes when `credentials` do; looks at the files once a second at most."""
        now = time.monotonic()
        if self._tls is not None and now - self._looked_at >= _LOOK_INTERVAL:
            self._looked_at = now
            self._look(self._tls)
        return self._generation

    def _look(self, tls: Tls) -> None:
        # Before they are read: a write in between is seen the next time.
        version = _version_of(tls)
        if version == self._version:
            return
        self._version = version
        try:
            self.credentials = _read(tls)
        except ValueError as error:
            logger.warning("the last good files of TLS are used on: %s", error)
        else:
            self._generation += 1
            logger.info("new connections use the changed files of TLS")


def _version_of(tls: Tls) -> _Version:
    return tuple(
        _status_of(Path(file))
        for file in (tls.authorities, tls.certificate, tls.key)
        if file is not None
    )


def _status_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(tls: Tls) -> grpc.ChannelCredentials:
    """The files' content, if Python's own TLS can use it: gRPC's would fail only when it connects.

    Raises:
        ValueError: A file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = certificate = key = None
    if tls.authorities is not None:
        authorities = _bytes_of(tls.authorities)
        try:
            context.load_verify_locations(cafile=tls.authorities)
        except OSError:
            raise ValueError(f"tls: {tls.authorities} holds no certificate in PEM") from None
    if tls.certificate is not None and tls.key is not None:
        certificate, key = _bytes_of(tls.certificate), _bytes_of(tls.key)
        try:
            # Without a password it would ask for one at the terminal.
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except (OSError, ValueError):
            raise ValueError(
                f"tls: {tls.certificate} and {tls.key} are no certificate and its key in PEM,"
                " or the key is encrypted"
            ) from None
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def _bytes_of(file: str | os.PathLike[str]) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"tls: cannot read {file}: {error.strerror}") from None
