"""The one interceptor around every RPC: decode, validate, translate errors, log.

One instead of a chain, because each link costs as much as the whole. It sees calls with one
request message (unary and server-streaming); health, reflection and other calls pass as they are.
"""

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from inspect import isasyncgenfunction
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status
from protovalidate import Validator, Violation

from taskforge_core.database_errors import DATABASE_EXCEPTIONS, translate_database_error
from taskforge_core.errors import (
    FieldViolation,
    Internal,
    InvalidArgument,
    TaskForgeError,
    to_status,
)

log = structlog.get_logger(__name__)

Context = Any
Handler = Any

_OURS = "/taskforge."
_REQUEST_ID = "x-request-id"
_MAX_REQUEST_ID_LENGTH = 128
_MAX_VIOLATIONS = 100


if TYPE_CHECKING:
    # Generic in its type stubs alone.
    _Base = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Base = grpc.aio.ServerInterceptor


class Interceptor(_Base):
    """The border of a server: behind it are valid requests and typed errors only."""

    def __init__(self) -> None:
        """One instance serves one server; it remembers the wrapped handler of each method."""
        self._validator = Validator()
        self._wrapped: dict[str, Handler] = {}

    def warm_up(self, services: Iterable[ServiceDescriptor]) -> None:
        """Compile the rules of all request messages, so that the first call is as fast as any."""
        for service in services:
            for method in service.methods:
                self._validator.collect_violations(GetMessageClass(method.input_type)())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Give gRPC the wrapped handler of the called method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        # Only methods that exist are remembered: callers could fill the memory with invented names.
        if handler is None or handler.request_streaming or not method.startswith(_OURS):
            return handler
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # The request arrives as bytes and is decoded inside the border, so that undecodable ones
        # get a proper error too.
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler),
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
        wrap = self._generator if isasyncgenfunction(handler.unary_stream) else self._writer
        return grpc.unary_stream_rpc_method_handler(
            wrap(method, handler),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, method: str, handler: Handler) -> Callable[..., Awaitable[Message]]:
        behaviour, decode = handler.unary_unary, handler.request_deserializer

        async def call(raw: bytes, context: Context) -> Message:
            started = time.perf_counter()
            try:
                response: Message = await behaviour(self._accept(decode, raw), context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await self._refuse(method, context, started, error)
                raise
            log.debug("rpc", method=method, code="OK", ms=_milliseconds_since(started))
            return response

        return call

    def _writer(self, method: str, handler: Handler) -> Callable[..., Awaitable[None]]:
        """For a handler that is a coroutine and writes to its context."""
        behaviour, decode = handler.unary_stream, handler.request_deserializer

        async def call(raw: bytes, context: Context) -> None:
            started = time.perf_counter()
            log.debug("stream_opened", method=method)
            try:
                await behaviour(self._accept(decode, raw), context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - this is the border
                await self._refuse(method, context, started, error)
            finally:
                log.debug("stream_closed", method=method, ms=_milliseconds_since(started))

        return call

    def _generator(self, method: str, handler: Handler) -> Callable[..., AsyncIterator[Message]]:
        """For a handler that is an asynchronous generator."""
        behaviour, decode = handler.unary_stream, handler.request_deserializer

        async def call(raw: bytes, context: Context) -> AsyncIterator[Message]:
            started = time.perf_counter()
            log.debug("stream_opened", method=method)
            try:
                async with aclosing(behaviour(self._accept(decode, raw), context)) as responses:
                    async for response in responses:
                        yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - this is the border
                await self._refuse(method, context, started, error)
            finally:
                log.debug("stream_closed", method=method, ms=_milliseconds_since(started))

        return call

    def _accept(self, decode: Callable[[bytes], Message], raw: bytes) -> Message:
        """The decoded request.

        Raises:
            InvalidArgument: It cannot be decoded, or breaks a rule of the contract.
        """
        try:
            request = decode(raw)
        except DecodeError:
            raise InvalidArgument(
                "INVALID_REQUEST",
                "the request is not a valid message (is a string not UTF-8?)",
            ) from None
        violations = self._validator.collect_violations(request)
        if violations:
            raise invalid_request(violations)
        return request

    async def _refuse(
        self, method: str, context: Context, started: float, error: Exception
    ) -> None:
        """End the call with the error's status; never returns normally."""
        refusal = to_taskforge_error(error)
        ms = _milliseconds_since(started)
        if isinstance(refusal, Internal):
            request_id = _request_id(context)
            refusal.metadata.setdefault("request_id", request_id)
            log.error(
                "rpc", method=method, code=refusal.code.name, reason=refusal.reason, ms=ms,
                request_id=request_id, exc_info=error,
            )  # fmt: skip
        else:
            log.info(
                "rpc", method=method, code=refusal.code.name, reason=refusal.reason, ms=ms,
                message=refusal.message,
            )  # fmt: skip
        await context.abort_with_status(rpc_status.to_status(to_status(refusal)))


def to_taskforge_error(error: BaseException) -> TaskForgeError:
    """The error that a caller may see for whatever was raised; unknown ones are `Internal`."""
    if isinstance(error, TaskForgeError):
        return error
    if isinstance(error, DATABASE_EXCEPTIONS):
        return translate_database_error(error)
    return Internal("INTERNAL", "the server failed")


def invalid_request(violations: Iterable[Violation]) -> InvalidArgument:
    """The error for a request that breaks rules of the contract; lists the first 100 of them."""
    fields: list[FieldViolation] = []
    for violation in violations:
        if len(fields) == _MAX_VIOLATIONS:
            break
        fields.append(
            FieldViolation(_path(violation), violation.proto.message or violation.proto.rule_id)
        )
    first = fields[0]
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    message = f"{first.field}: {first.description}" if first.field else first.description
    return InvalidArgument(
        "INVALID_REQUEST",
        f"{message}{more}",
        metadata={"field": first.field},
        field_violations=fields,
    )


def _path(violation: Violation) -> str:
    """The field's path as people write it: `items[3].labels["team"]`."""
    path = violation.proto.field
    if path is None:
        return ""
    parts: list[str] = []
    for element in path.elements:
        parts.append(f".{element.field_name}" if parts else element.field_name)
        subscript = element.subscript
        if subscript is not None:
            key = subscript.value
            parts.append(f'["{key}"]' if isinstance(key, str) else f"[{key}]")
    return "".join(parts)


def _request_id(context: Context) -> str:
    """The caller's `x-request-id`, so that its logs and ours can be joined; else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == _REQUEST_ID and isinstance(value, str) and value:
            return value[:_MAX_REQUEST_ID_LENGTH]
    return uuid.uuid4().hex


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 2)
