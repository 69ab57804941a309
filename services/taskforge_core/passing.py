"""One call's way through the border: who comes in, and in which form it leaves."""

import asyncio
import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import grpc
import structlog
from grpc_status import rpc_status

from taskforge_core.access import Access
from taskforge_core.callers import Call, Permission, enter, new_request_id
from taskforge_core.database_errors import DATABASE_EXCEPTIONS, translate_database_error
from taskforge_core.errors import Internal, TaskForgeError, to_status

log = structlog.get_logger(__name__)

Context = Any

_AUTHORIZATION = "authorization"
_REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID_LENGTH = 128
_CERTIFICATE_NAMES = "x509_subject_alternative_name"


class Passage:
    """Lets a call in if its caller is known and may make it; ends it with a typed error, or well.

    An asynchronous context manager around the handler: whatever the handler raises is translated
    and told to the client, except what the client knows itself, as it cancelled the call.
    """

    __slots__ = ("_access", "_call", "_context", "_method", "_permission", "_size", "_started")

    def __init__(
        self, access: Access, method: str, permission: Permission, size: int, context: Context
    ) -> None:
        self._access = access
        self._method = method
        self._permission = permission
        self._size = size
        self._context = context
        self._call: Call | None = None
        self._started = time.perf_counter()

    async def __aenter__(self) -> None:
        credential, request_id = _read_metadata(self._context)
        try:
            names = () if credential else _certificate_names(self._context)
            caller = await self._access.authenticate(credential, names)
            call = self._call = Call(
                self._method, caller, request_id, self._size, task=asyncio.current_task()
            )
            caller.require(self._permission)
        except Exception as error:
            await self._refuse(error, request_id)
            raise
        enter(call)
        self._access.opened(call)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        call = self._call
        assert call is not None
        self._access.closed(call)
        if error is None:
            if log.is_enabled_for(logging.DEBUG):
                log.debug("rpc", code="OK", **self._told(call.request_id))
            return
        if isinstance(error, asyncio.CancelledError) and call.refusal is not None:
            # We ended it ourselves: its credential is no longer good.
            assert call.task is not None
            call.task.uncancel()
            error = call.refusal
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            await self._refuse(error, call.request_id)

    async def _refuse(self, error: Exception, request_id: str) -> None:
        """End the call with the error's status; never returns normally."""
        refusal = to_taskforge_error(error)
        if isinstance(refusal, Internal):
            request_id = request_id or new_request_id()
            refusal.metadata.setdefault("request_id", request_id)
        told = self._told(request_id) | {"code": refusal.code.name, "reason": refusal.reason}
        if isinstance(refusal, Internal):
            log.error("rpc", **told, exc_info=error)
        else:
            log.info("rpc", **told, message=refusal.message)
        await self._context.abort_with_status(rpc_status.to_status(to_status(refusal)))

    def _told(self, request_id: str) -> dict[str, object]:
        """What each line about the call says."""
        told: dict[str, object] = {
            "method": self._method,
            "ms": round((time.perf_counter() - self._started) * 1000, 2),
        }
        if request_id:
            told["request_id"] = request_id
        if self._call is not None:
            told["caller"] = self._call.caller.name
            if self._call.caller.organisation_id is not None:
                told["organisation"] = str(self._call.caller.organisation_id)
            if self._call.project_id is not None:
                told["project"] = str(self._call.project_id)
        return told


def to_taskforge_error(error: BaseException) -> TaskForgeError:
    """The error that a caller may see for whatever was raised; unknown ones are `Internal`."""
    if isinstance(error, TaskForgeError):
        return error
    if isinstance(error, DATABASE_EXCEPTIONS):
        return translate_database_error(error)
    return Internal("INTERNAL", "the server failed")


def _read_metadata(context: Context) -> tuple[str, str]:
    """The credential and the caller's `x-request-id`, or empty texts.

    Several credentials make none that is valid.
    """
    credential = request_id = ""
    for key, value in context.invocation_metadata() or ():
        if key == _AUTHORIZATION:
            credential = f"{credential},{value}" if credential else value or ","
        elif key == _REQUEST_ID:
            request_id = value[:_MAX_REQUEST_ID_LENGTH]
    return credential, request_id


def _certificate_names(context: Context) -> Sequence[str]:
    """The names in the client's certificate, which TLS has verified."""
    names = context.auth_context().get(_CERTIFICATE_NAMES, ())
    return [name.decode("utf-8", "replace") for name in names]
