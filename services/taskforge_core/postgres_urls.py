"""Whether a text is the address of a Postgres, asked before the driver stumbles over it.

The driver reads `postgresql://me:12/x@host` as port 12 of the host `me`, and what it says of others
has a part of the password in it.
"""

from urllib.parse import SplitResult, parse_qsl, urlsplit

_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_HIGHEST_PORT = 65535
_HINT = "percent-encode # / ? [ ] @ and % in a user name or a password (# is %23)"


def check_postgres_url(url: str) -> None:
    """Return if the driver can make sense of it, and the sense that was meant.

    Raises:
        ValueError: It cannot. The message repeats no part of the address, which may hold a
            password.
    """
    try:
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        raise ValueError(f"cannot be read: {_HINT}") from None
    if _is_cut("#" in url, parts):
        raise ValueError(f"cannot be read: {_HINT}")
    hosts = parts.netloc.rpartition("@")[2]
    if not (_are_hosts(hosts) and _are_hosts(parameters.get("host", ""))):
        raise ValueError(f"names a host or a port that is none: {_HINT}")
    if "port" in parameters and not all(map(_is_port, parameters["port"].split(","))):
        raise ValueError("its port is a number from 1 to 65535")
    if parameters.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"its sslmode is one of {', '.join(_SSL_MODES)}")


def _is_cut(has_fragment: bool, parts: SplitResult) -> bool:
    """Whether a password has ended where one of its characters has a meaning in an address."""
    # Without a user in front of the hosts, what follows their port may be the rest of a password.
    port_alone = ":" in parts.netloc and "@" not in parts.netloc
    rest = parts.path if parts.path or not port_alone else parts.query
    return has_fragment or "@" in rest or parts.netloc.count("@") > 1


def _are_hosts(listed: str) -> bool:
    """Whether these are `host`, `host:port` or `[::1]:port`, with commas between them; or none."""
    return listed == "" or all(map(_is_host, listed.split(",")))


def _is_host(host: str) -> bool:
    if host.startswith("/"):  # a folder with a socket
        return True
    port = host.rpartition("]")[2].partition(":")[2]
    return host != "" and (port == "" or _is_port(port))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text) <= _HIGHEST_PORT
