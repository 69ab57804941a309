import socket

import pytest

from taskforge_cli.ports import PortUnavailable, ReservedPort


def _listen(port: int, option: int | None) -> None:
    with socket.socket() as server:
        if option is not None:
            server.setsockopt(socket.SOL_SOCKET, option, 1)
        server.bind(("127.0.0.1", port))
        server.listen()


def test_nobody_else_gets_a_reserved_port() -> None:
    with ReservedPort() as port:
        with pytest.raises(PortUnavailable, match=f"port {port.port} is in use"):
            ReservedPort(port.port)
        for option in (None, socket.SO_REUSEADDR):
            with pytest.raises(OSError, match="Address already in use"):
                _listen(port.port, option)


def test_a_server_that_shares_the_port_can_come_and_go() -> None:
    with ReservedPort() as port:
        for _ in range(2):
            _listen(port.port, socket.SO_REUSEPORT)


def test_a_port_that_a_sharing_server_has_is_in_use() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(PortUnavailable, match="is in use by another process"):
            ReservedPort(server.getsockname()[1])


def test_a_released_port_is_free() -> None:
    port = ReservedPort()
    port.release()
    ReservedPort(port.port).release()
