"""TCP ports of the loopback that are held for a child that is not there yet."""

import errno
import os
import socket
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"


class PortUnavailable(OSError):
    """The port is taken, or not ours to take; the message tells which in one line."""

    def __init__(self, port: int, error: OSError) -> None:
        if error.errno == errno.EADDRINUSE:
            why = "is in use by another process"
        else:
            why = f"cannot be used: {os.strerror(error.errno or 0)}"
        super().__init__(f"port {port} {why}")
        self.port = port


class ReservedPort:
    """A port of the loopback that nobody else gets while this lives, but children that share it.

    Held by a socket that is bound and never listens, so it takes no connection. It is bound alone,
    which fails where anything else has the port, and only then opened to servers that set
    SO_REUSEPORT (`TASKFORGE_REUSE_PORT`) and run as the same user. So a server can be started,
    killed and started again on its port, and no other process slips in between.
    """

    def __init__(self, port: int = 0) -> None:
        """Take the port; 0 takes a free one.

        Raises:
            PortUnavailable: It is in use, or needs rights that we lack.
        """
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # Connections of an earlier server that still linger do not hinder.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((LOOPBACK, port))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Without it, only those that set SO_REUSEPORT share the port.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            self._socket.close()
            raise PortUnavailable(port, error) from error
        self.port: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """`127.0.0.1:port`."""
        return f"{LOOPBACK}:{self.port}"

    def release(self) -> None:
        """Let the port go."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
