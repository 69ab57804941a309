"""Messages between the bench and its load processes: JSON, one a line, over a unix socket."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any, Self

import orjson

_CHUNK = 256 * 1024


class LineClosed(Exception):
    """The other side is gone."""


class Line:
    """One connection; one thread may receive while any thread sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._rest = bytearray()

    @classmethod
    def to(cls, path: Path) -> Self:
        """Connect to who listens on this socket.

        Raises:
            OSError: Nobody does.
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        return cls(connection)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message.

        Raises:
            LineClosed: The other side is gone.
        """
        try:
            with self._sending:
                self._connection.sendall(orjson.dumps(message) + b"\n")
        except OSError as error:
            raise LineClosed from error

    def receive(self) -> dict[str, Any]:
        """The next message, when it has come.

        Raises:
            LineClosed: None will come.
        """
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            try:
                chunk = self._connection.recv(_CHUNK)
            except OSError as error:
                raise LineClosed from error
            if not chunk:
                raise LineClosed
            self._rest += chunk
        message: dict[str, Any] = orjson.loads(bytes(self._rest[:end]))
        del self._rest[: end + 1]
        return message

    def close(self) -> None:
        """End the connection; a `receive` that waits ends too."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
