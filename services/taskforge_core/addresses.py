"""What an address says of who can reach it."""

from ipaddress import ip_address


def is_local(address: str) -> bool:
    """Whether only this machine can reach a server at `host:port` or `unix:/path`.

    A name other than `localhost` counts as reachable from anywhere: what it means is decided
    elsewhere.
    """
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
