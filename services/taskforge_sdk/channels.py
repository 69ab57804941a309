"""How channels to TaskForge are opened."""

import json
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

import grpc
import grpc.aio

DEFAULT_QUEUE_ADDRESS: Final = "127.0.0.1:50051"
DEFAULT_JOB_ADDRESS: Final = "127.0.0.1:50052"

_ROUND_ROBIN: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})

_OPTIONS: Final[tuple[tuple[str, str | int], ...]] = (
    # A broken connection is found out within 30 s while a call is open on it. The servers allow a
    # ping each 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A job may have a payload and a result of 1 MiB each, and 100 failed attempts of 8 KiB.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    # A server that restarts is found again within a second or two instead of gRPC's 2 min: leases
    # may be as short as that.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def is_dns_name(address: str) -> bool:
    """Whether the address may stand for several servers: a name that DNS resolves."""
    scheme, separator, _ = address.partition(":")
    if scheme == "dns" and separator:
        return True
    if scheme in {"unix", "unix-abstract", "ipv4", "ipv6", "vsock", "xds"} and separator:
        return False
    return not _is_ip_address(_host_of(address))


def is_local(address: str) -> bool:
    """Whether what is sent there stays on this machine: a unix socket, or the loopback."""
    scheme, separator, rest = address.partition(":")
    if scheme in {"unix", "unix-abstract"} and separator:
        return True
    if scheme in {"ipv4", "ipv6"} and separator:
        return all(_is_loopback(_host_of(each)) for each in rest.split(","))
    # `dns://server/name`, which asks a DNS server of somebody's choice, is never local.
    name = rest.removeprefix("///") if scheme == "dns" and separator else address
    return _is_loopback(_host_of(name))


def refuse_plaintext_key(addresses: Iterable[str]) -> None:
    """Raise ValueError if a key would leave this machine readable for everybody on its way."""
    for address in addresses:
        if not is_local(address):
            raise ValueError(
                f"api_key: it would go to {address} in plaintext; give `tls`, or say"
                " `allow_plaintext_key=True` where the network itself is trusted"
            )


def options_for(address: str, *, own_connection: bool = False) -> list[tuple[str, str | int]]:
    """The channel options for an address.

    `own_connection`: never share a connection with another channel of this process, so that a new
    channel is a new connection and may reach another replica.
    """
    options = list(_OPTIONS)
    if is_dns_name(address):
        options.append(("grpc.service_config", _ROUND_ROBIN))
    if is_local(address):
        # A proxy's loopback is another one.
        options.append(("grpc.enable_http_proxy", 0))
    if own_connection:
        options.append(("grpc.use_local_subchannel_pool", 1))
    return options


def open_channel(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    own_connection: bool = False,
) -> grpc.aio.Channel:
    """Open an asynchronous channel; it connects with its first call, in the running event loop."""
    options = options_for(address, own_connection=own_connection)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, credentials, options)


def open_blocking_channel(
    address: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.Channel:
    """Open a blocking channel; it connects with its first call."""
    options = options_for(address)
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials, options)


def _host_of(address: str) -> str:
    """The host of `host:port`, `[address]:port`, or an address or name alone."""
    if address.startswith("["):
        return address.partition("]")[0].removeprefix("[")
    return address if address.count(":") > 1 else address.partition(":")[0]


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_ip_address(host) and ip_address(host).is_loopback)
