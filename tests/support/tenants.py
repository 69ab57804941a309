"""Tenants and their keys, put into the database past the services; and channels that bear a key."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import grpc

from taskforge.v1 import permission_pb2
from taskforge_core.api_keys import new_api_key
from taskforge_core.callers import ALL_PERMISSIONS
from taskforge_core.ids import uuid7

QUEUE_READ = permission_pb2.PERMISSION_QUEUE_READ
QUEUE_WRITE = permission_pb2.PERMISSION_QUEUE_WRITE
JOB_READ = permission_pb2.PERMISSION_JOB_READ
JOB_WRITE = permission_pb2.PERMISSION_JOB_WRITE
ADMIN = permission_pb2.PERMISSION_ADMIN


@dataclass(frozen=True)
class Tenant:
    """An organisation with two projects, and a key for all of it."""

    organisation_id: UUID
    project_id: UUID
    """Of the project `default`."""
    other_project_id: UUID
    key: str
    """Has every permission in both projects."""


async def insert_tenant(pool: Any, name: str, *, is_operator: bool = False) -> Tenant:
    """A tenant of its own."""
    organisation_id, project_id, other_project_id = uuid7(), uuid7(), uuid7()
    await pool.execute(
        "INSERT INTO taskforge.organisations (id, name, is_operator) VALUES ($1, $2, $3)",
        organisation_id,
        name,
        is_operator,
    )
    await pool.execute(
        "INSERT INTO taskforge.projects (id, organisation_id, name)"
        " VALUES ($1, $3, 'default'), ($2, $3, 'other')",
        project_id,
        other_project_id,
        organisation_id,
    )
    key = await insert_key(pool, organisation_id)
    return Tenant(organisation_id, project_id, other_project_id, key)


async def insert_key(
    pool: Any,
    organisation_id: UUID,
    permissions: Iterable[int] = ALL_PERMISSIONS,
    *,
    project_id: UUID | None = None,
    expires_at: datetime | None = None,
    certificate_name: str | None = None,
) -> str:
    """A key; returns its text, which is of no use where it stands for a certificate."""
    key = new_api_key()
    await pool.execute(
        "INSERT INTO taskforge.api_keys (id, organisation_id, project_id, name, secret_hash,"
        " certificate_name, permissions, created_by, expires_at)"
        " VALUES ($1, $2, $3, 'test', $4, $5, $6, 'a test', $7)",
        key.id,
        organisation_id,
        project_id,
        None if certificate_name else key.secret_hash,
        certificate_name,
        sorted(permissions),
        expires_at,
    )
    return key.text


def key_id(key: str) -> UUID:
    """The id of a key, which is no secret."""
    return UUID(key.split("_")[1])


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call that bears a key."""
    return (("authorization", f"Bearer {key}"),)


class _UnaryBearer(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        return await continuation(_with_key(details, self._key), request)


class _StreamBearer(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    def __init__(self, key: str) -> None:
        self._key = key

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], details: Any, request: Any
    ) -> Any:
        return await continuation(_with_key(details, self._key), request)


def _with_key(details: Any, key: str) -> Any:
    return details._replace(metadata=(*(details.metadata or ()), *bearer(key)))


def bearing_channel(
    address: str, key: str, credentials: grpc.ChannelCredentials | None = None
) -> grpc.aio.Channel:
    """A channel whose calls all bear the key; of TLS, if there are credentials."""
    # gRPC takes an interceptor of two kinds for the first of them only.
    interceptors: list[Any] = [_UnaryBearer(key), _StreamBearer(key)]
    if credentials is not None:
        return grpc.aio.secure_channel(address, credentials, interceptors=interceptors)
    return grpc.aio.insecure_channel(address, interceptors=interceptors)
