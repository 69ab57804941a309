"""The settings of every TaskForge process, and the only reader of the environment.

Each field is an environment variable of the same name with the prefix `TASKFORGE_`
(`database_url` is `TASKFORGE_DATABASE_URL`). A duration is a number of seconds (`20`, `1.5`) or
a number with a unit (`500ms`, `20s`, `5m`, `24h`, `14d`); ISO 8601 (`PT20S`) works too.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from taskforge_core.postgres_urls import check_postgres_url

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")


def _parse_duration(value: object) -> object:
    """Turn `20`, `20s`, `5m` … into a timedelta; leave every other form to pydantic."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    return value


Duration = Annotated[timedelta, BeforeValidator(_parse_duration)]

JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]

_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def _default_data_folder() -> Path:
    """The folder of the embedded Postgres that belongs to this user.

    Root's home is usually closed to others, and Postgres, which refuses to run as root, runs as
    nobody; so root's data lies where system services keep theirs.
    """
    if chosen := os.environ.get("XDG_DATA_HOME"):
        return Path(chosen) / "taskforge" / "postgres"
    if os.geteuid() == 0:
        return Path("/var/lib/taskforge/postgres")
    return Path.home() / ".local" / "share" / "taskforge" / "postgres"


@contextmanager
def quiet_grpc() -> Iterator[None]:
    """Import gRPC within this, and its C core writes no lines of its own, unless it is told to.

    It reads `GRPC_VERBOSITY` once, when it is imported; what this process starts does not inherit
    the word.
    """
    if "GRPC_VERBOSITY" in os.environ:
        yield
        return
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        yield
    finally:
        del os.environ["GRPC_VERBOSITY"]


class MissingDatabaseUrl(ValueError):
    """A process needs a database, and `TASKFORGE_DATABASE_URL` is not set."""

    def __init__(self) -> None:
        super().__init__("TASKFORGE_DATABASE_URL is not set; it names the Postgres to use")


class Settings(BaseSettings):
    """All settings, read once by the composition root of a process and passed on from there."""

    model_config = SettingsConfigDict(
        env_prefix="TASKFORGE_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # An address may hold a password.
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    # -- Database ---------------------------------------------------------------------------

    database_url: str | None = Field(default=None, repr=False, exclude=True)
    """`postgresql://user@host:port/database`; in a password `# / ? [ ] @ %` are percent-encoded
    (`#` is `%23`). Unset: `taskforge dev` starts the embedded Postgres, and every other process
    refuses to start."""

    listen_url: str | None = Field(default=None, repr=False, exclude=True)
    """A direct connection for LISTEN and leader election, needed when `database_url` goes through
    a pooler. Default: `database_url`."""

    hot_pool_size: int = Field(default=10, ge=1, le=500)
    """Connections a process may hold for enqueuing, leasing, settling and heartbeats; 1 to 500."""

    browse_pool_size: int = Field(default=5, ge=1, le=500)
    """Connections a process may hold for administration and browsing, apart from the hot ones so
    that a slow listing cannot starve heartbeats; 1 to 500."""

    statement_cache: bool = True
    """Keep prepared statements. Switch it off behind a pooler in transaction mode; then the
    role needs `ALTER ROLE … SET search_path = taskforge`, since no session setting is sent."""

    connect_timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0), le=_HOUR)
    """Longest wait for a new connection, or for a free one of a pool; up to 1 h."""

    statement_timeout: Duration = Field(default=timedelta(seconds=15), gt=timedelta(0), le=_HOUR)
    """Longest run of one statement of the hot pool, enforced by Postgres; up to 1 h."""

    browse_statement_timeout: Duration = Field(
        default=timedelta(seconds=30), gt=timedelta(0), le=_HOUR
    )
    """Longest run of one statement of administration and browsing; up to 1 h."""

    lock_timeout: Duration = Field(default=timedelta(seconds=3), gt=timedelta(0), le=_HOUR)
    """Longest wait of a statement for a lock; up to 1 h."""

    idle_in_transaction_timeout: Duration = Field(
        default=timedelta(seconds=10), gt=timedelta(0), le=_HOUR
    )
    """After this long idle inside a transaction Postgres ends the session; up to 1 h."""

    data_folder: Path = Field(default_factory=_default_data_folder)
    """Where the embedded Postgres keeps its data. Default: `taskforge/postgres` below
    `XDG_DATA_HOME`, else below `~/.local/share`, for root below `/var/lib`."""

    # -- Servers ----------------------------------------------------------------------------

    queue_address: str = "127.0.0.1:50051"
    """Where queue_service listens: `host:port` (port 0: a free one) or `unix:/path`."""

    job_address: str = "127.0.0.1:50052"
    """Where job_service listens: `host:port` (port 0: a free one) or `unix:/path`."""

    reflection: bool = False
    """Serve gRPC reflection, so that tools such as grpcurl can list the services."""

    reuse_port: bool = False
    """Let several processes listen on one port (SO_REUSEPORT); the kernel spreads connections
    over them. Off by default, so that a port taken by another server is an error."""

    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=64 * 1024, le=64 * 1024 * 1024)
    """Largest message a server receives or sends, in bytes; 64 KiB to 64 MiB."""

    keepalive_interval: Duration = Field(default=timedelta(seconds=30), ge=_SECOND, le=_HOUR)
    """How often a server pings a silent connection; 1 s to 1 h."""

    keepalive_timeout: Duration = Field(default=timedelta(seconds=10), ge=_SECOND, le=_HOUR)
    """A ping unanswered for this long closes the connection; 1 s to 1 h."""

    min_client_ping_interval: Duration = Field(
        default=timedelta(seconds=5), gt=timedelta(0), le=_HOUR
    )
    """A client that pings more often than this is sent away (`too_many_pings`); it must lie below
    the clients' own keepalive interval. Up to 1 h."""

    max_connection_age: Duration = Field(default=timedelta(minutes=30), ge=_SECOND, le=_DAY)
    """A connection older than this (± 10 %) is asked to reconnect, so that new replicas get their
    share; 1 s to 1 day."""

    max_connection_age_grace: Duration = Field(default=timedelta(minutes=1), ge=_SECOND, le=_DAY)
    """How long the calls of an aged connection may still run; then its streams are cut and their
    workers resume on another; 1 s to 1 day."""

    max_concurrent_streams: int = Field(default=1000, ge=1, le=1_000_000)
    """Calls open at once on one connection; more wait in the client. 1 to 1,000,000."""

    drain_grace: Duration = Field(default=timedelta(seconds=20), ge=timedelta(0), le=_HOUR)
    """After SIGTERM: how long running calls and streams may take to end; up to 1 h."""

    # -- Authentication ---------------------------------------------------------------------

    authentication: Literal["on", "off"] = "on"
    """`off`: whoever reaches a server may do everything. A server then listens on loopback
    addresses and unix sockets only."""

    jwt_issuer: str | None = None
    """The `iss` of JSON Web Tokens that are taken beside API keys. Unset: none are."""

    jwt_audience: str | None = None
    """The `aud` that such a token must have; needed with `jwt_issuer`."""

    jwt_keys: str | None = None
    """The issuer's public keys (JWKS), as a path or an https address; needed with `jwt_issuer`.
    They are read again when the file changes, or every 5 minutes and for a key not seen before. The
    address must show a certificate of an authority that the system trusts, or of one in the bundle
    that the variable `SSL_CERT_FILE` names in its place."""

    jwt_algorithms: tuple[JwtAlgorithm, ...] = ("RS256", "ES256", "EdDSA")
    """The signatures that are taken, as a JSON list; those with shared secrets never are."""

    jwt_organisation_claim: str = "organisation"
    """The claim that holds the organisation's id or name."""

    jwt_project_claim: str = "project"
    """The claim that holds the id of the one project that the token is for; it may be left out."""

    jwt_permissions_claim: str = "scope"
    """The claim that holds permissions (`job:write`): a list, or a text with spaces between them;
    what is no permission of TaskForge is passed over."""

    # -- TLS --------------------------------------------------------------------------------

    tls_certificate: Path | None = None
    """The server's certificate with its chain, PEM; set together with `tls_key` it switches TLS
    on. All files of TLS are read again when they change; new connections then get the new ones."""

    tls_key: Path | None = None
    """The private key of `tls_certificate`, PEM, not encrypted."""

    tls_client_authorities: Path | None = None
    """A bundle of CA certificates, PEM. Set: a client, also one that asks for health, must show a
    certificate that one of them has signed (mTLS)."""

    # -- Clients ----------------------------------------------------------------------------

    api_key: SecretStr | None = None
    """What the command identifies itself with: an API key, or a JWT. Over plaintext it goes to
    this machine only."""

    api_key_file: Path | None = None
    """A file with the API key or JWT, where `api_key` is not set; read again when the server
    refuses what it held. Default: the key that `taskforge dev` has made, `local.key` in
    `data_folder`, for servers on this machine only."""

    tls_authorities: Path | None = None
    """A bundle of CA certificates, PEM, that the servers' certificates must be signed by. Set: the
    command speaks TLS."""

    tls_client_certificate: Path | None = None
    """The certificate that the command shows to a server that asks for one, PEM with its chain;
    goes with `tls_client_key`."""

    tls_client_key: Path | None = None
    """The private key of `tls_client_certificate`, PEM, not encrypted."""

    # -- Retention --------------------------------------------------------------------------

    history_retention: Duration = Field(default=timedelta(days=14), ge=_DAY, le=3650 * _DAY)
    """How long finished jobs are kept; whole days are dropped. 1 day to 10 years."""

    request_id_retention: Duration = Field(default=timedelta(hours=24), ge=_SECOND, le=365 * _DAY)
    """How long a `request_id` is remembered, also beyond its job's life; 1 s to 1 year."""

    # -- Logs -------------------------------------------------------------------------------

    log_format: Literal["console", "json"] = "console"
    """`console` for people, `json` (one object a line) for machines; always to stderr."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe level that is written."""

    @field_validator("authentication", "log_format", "log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url", "listen_url")
    @classmethod
    def _plain_postgres_url(cls, value: str | None) -> str | None:
        """Accept the spellings other tools use, and refuse what is no Postgres at all."""
        if value is None:
            return None
        scheme, separator, rest = value.partition("://")
        if not separator or scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
            raise ValueError("must begin with postgresql://")
        check_postgres_url(url := f"postgresql://{rest}")
        return url

    @model_validator(mode="after")
    def _issuer_is_whole(self) -> "Settings":
        if self.jwt_issuer and not (self.jwt_audience and self.jwt_keys):
            raise ValueError("jwt_issuer needs jwt_audience and jwt_keys beside it")
        if self.jwt_keys and "://" in self.jwt_keys and not self.jwt_keys.startswith("https://"):
            raise ValueError("jwt_keys must be a path or an https address")
        return self

    @model_validator(mode="after")
    def _ping_limits_agree(self) -> "Settings":
        if self.min_client_ping_interval > self.keepalive_interval:
            raise ValueError(
                "min_client_ping_interval must not exceed keepalive_interval:"
                " a client may ping as often as the server does"
            )
        return self

    @model_validator(mode="after")
    def _tls_files_agree(self) -> "Settings":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_authorities is not None and self.tls_certificate is None:
            raise ValueError("tls_client_authorities needs tls_certificate and tls_key")
        if (self.tls_client_certificate is None) != (self.tls_client_key is None):
            raise ValueError("tls_client_certificate and tls_client_key go together")
        if self.tls_client_certificate is not None and self.tls_authorities is None:
            raise ValueError("tls_client_certificate needs tls_authorities")
        return self

    @property
    def local_key_file(self) -> Path:
        """Where `taskforge dev` leaves the key of the system that it runs."""
        return self.data_folder / "local.key"

    def require_database_url(self) -> str:
        """The database's address.

        Raises:
            MissingDatabaseUrl: None is set.
        """
        if self.database_url is None:
            raise MissingDatabaseUrl
        return self.database_url

    def require_listen_url(self) -> str:
        """The address for direct connections: `listen_url`, else `database_url`.

        Raises:
            MissingDatabaseUrl: Neither is set.
        """
        return self.listen_url or self.require_database_url()
