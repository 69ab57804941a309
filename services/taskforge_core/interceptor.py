"""The one interceptor around every RPC: who may call it, with what, and in which form it fails.

One instead of a chain, because each link costs as much as the whole.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from functools import partial
from inspect import isasyncgenfunction
from itertools import islice
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator, Violation

from taskforge.v1 import permission_pb2
from taskforge_core.access import Access
from taskforge_core.callers import Permission
from taskforge_core.errors import FieldViolation, InvalidArgument
from taskforge_core.passing import Passage
from taskforge_core.times import TimeCheck, time_check

Context = Any
Handler = Any
Raw = Any
"""A request as bytes, or an asynchronous iterator of them."""
Behaviour = Callable[..., Any]
Accept = Callable[[Raw], Any]

_OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Probes carry no credentials; reflection, where it is switched on, shows what is public anyway."""
_MAX_VIOLATIONS = 100


if TYPE_CHECKING:
    # Generic in its type stubs alone.
    _Base = grpc.aio.ServerInterceptor[Any, Any]
else:
    _Base = grpc.aio.ServerInterceptor


class Interceptor(_Base):
    """The border of a server: behind it are known callers, valid requests and typed errors only.

    Nobody passes by default: a method of ours is served only if the contract names a permission for
    it, and of other methods only health and reflection are.
    """

    def __init__(self, access: Access, services: Iterable[ServiceDescriptor]) -> None:
        """One instance serves one server; it remembers the wrapped handler of each method."""
        self._access = access
        self._validator = Validator()
        self._wrapped: dict[str, Handler] = {}
        self._permissions: dict[str, Permission] = {}
        self._time_checks: dict[str, TimeCheck | None] = {}
        for service in services:
            for method in service.methods:
                name = f"/{service.full_name}/{method.name}"
                self._permissions[name] = permission_of(method)
                self._time_checks[name] = time_check(method.input_type)
                # Compiles the rules of the request, so that the first call is as fast as any.
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
        if handler is None or method.startswith(_OPEN_TO_ALL):
            return handler
        wrapped = self._wrap(method, handler)
        self._wrapped[method] = wrapped
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        # Requests arrive as bytes and are decoded inside the border, so that undecodable ones get a
        # proper error too.
        behaviour = (
            handler.unary_unary
            or handler.unary_stream
            or handler.stream_unary
            or handler.stream_stream
        )
        check = self._time_checks.get(method)
        accept_one = partial(self._accept, handler.request_deserializer, check)
        accept = partial(_each, accept_one) if handler.request_streaming else accept_one
        border: Callable[..., Any]
        if not handler.response_streaming:
            border = self._unary(method, behaviour, accept)
        elif isasyncgenfunction(behaviour):
            border = self._generator(method, behaviour, accept)
        else:
            border = self._writer(method, behaviour, accept)
        return _HANDLER_MAKERS[handler.request_streaming, handler.response_streaming](
            border, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _unary(
        self, method: str, behaviour: Behaviour, accept: Accept
    ) -> Callable[..., Awaitable[Message]]:
        async def call(raw: Raw, context: Context) -> Message:
            async with self._passage(method, raw, context):
                response: Message = await behaviour(accept(raw), context)
            return response

        return call

    def _writer(
        self, method: str, behaviour: Behaviour, accept: Accept
    ) -> Callable[..., Awaitable[None]]:
        """For a handler that is a coroutine and writes to its context."""

        async def call(raw: Raw, context: Context) -> None:
            async with self._passage(method, raw, context):
                await behaviour(accept(raw), context)

        return call

    def _generator(
        self, method: str, behaviour: Behaviour, accept: Accept
    ) -> Callable[..., AsyncIterator[Message]]:
        """For a handler that is an asynchronous generator."""

        async def call(raw: Raw, context: Context) -> AsyncIterator[Message]:
            async with (
                self._passage(method, raw, context),
                aclosing(behaviour(accept(raw), context)) as responses,
            ):
                async for response in responses:
                    yield response

        return call

    def _passage(self, method: str, raw: Raw, context: Context) -> Passage:
        size = len(raw) if isinstance(raw, bytes) else 0
        return Passage(self._access, method, self._permissions.get(method, 0), size, context)

    def _accept(
        self, decode: Callable[[bytes], Message], check: TimeCheck | None, raw: bytes
    ) -> Message:
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
        # The rules of the contract compare times, so those have to be times first.
        if check is not None and (malformed := check(request)):
            raise invalid_request(malformed)
        if violations := self._validator.collect_violations(request):
            raise invalid_request(map(_field_violation, violations))
        return request


_HANDLER_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By whether requests and responses are streams."""


def permission_of(method: MethodDescriptor) -> Permission:
    """The permission that the contract names for a method; 0, which nobody has, if none."""
    permission: Permission = method.GetOptions().Extensions[permission_pb2.permission]
    return permission


async def _each(
    accept: Callable[[bytes], Message], requests: AsyncIterator[bytes]
) -> AsyncIterator[Message]:
    async for raw in requests:
        yield accept(raw)


def invalid_request(violations: Iterable[FieldViolation]) -> InvalidArgument:
    """The error for a request that breaks rules of the contract; lists the first 100 of them."""
    fields = list(islice(violations, _MAX_VIOLATIONS))
    first = fields[0]
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    message = f"{first.field}: {first.description}" if first.field else first.description
    return InvalidArgument(
        "INVALID_REQUEST",
        f"{message}{more}",
        metadata={"field": first.field},
        field_violations=fields,
    )


def _field_violation(violation: Violation) -> FieldViolation:
    return FieldViolation(_path(violation), violation.proto.message or violation.proto.rule_id)


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
