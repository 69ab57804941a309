"""The set-up of a gRPC server process: options, health, reflection, start, and the way to stop.

Stopping is a sequence, because `grpc.aio` waits the whole grace while a stream is open: health
says NOT_SERVING, the drain hooks end the streams, and only then does the server stop.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from taskforge_core.access import Access
from taskforge_core.addresses import is_local
from taskforge_core.health import Health
from taskforge_core.interceptor import Interceptor
from taskforge_core.loops import Loop
from taskforge_core.remembering import REFRESH_EVERY
from taskforge_core.settings import Settings
from taskforge_core.tls import Certificates, UnusableCertificate

log = structlog.get_logger(__name__)

_READINESS_INTERVAL = timedelta(seconds=2)
_CERTIFICATES_INTERVAL = timedelta(seconds=2)

DrainHook = Callable[[], Awaitable[None]]
"""Called once when the server is to stop: end your streams, within the grace if you can."""


class CannotListen(OSError):
    """The address is taken, not ours, or no address at all; or the certificate is unusable."""

    def __init__(self, address: str, why: str = "is another server running there?") -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service of a server: its descriptor, and the call that registers its servicer."""

    descriptor: ServiceDescriptor
    register: Callable[[grpc.aio.Server], None]


class GrpcServer:
    """A server that is built but not yet started; `serve` runs it until a signal."""

    def __init__(
        self,
        settings: Settings,
        grpc_server: grpc.aio.Server,
        address: str,
        health: Health,
        access: Access,
        certificates: Certificates | None,
    ) -> None:
        """Use `build_server`."""
        self.grpc_server = grpc_server
        self.address = address
        """Where it listens, with the real port: `127.0.0.1:50051` or `unix:/path`."""
        self.health = health
        self.access = access
        self._settings = settings
        self._loops = (
            Loop("readiness", health.refresh, _READINESS_INTERVAL),
            Loop("access", access.refresh, REFRESH_EVERY),
            *(
                [Loop("certificates", certificates.refresh, _CERTIFICATES_INTERVAL)]
                if certificates is not None
                else []
            ),
        )

    async def start(self) -> None:
        """Serve; health is up to date when this returns."""
        await self.health.refresh()
        await self.grpc_server.start()
        for loop in self._loops:
            loop.start()
        log.info("serving", address=self.address)
        if self._settings.authentication == "off":
            log.warning(
                "authentication_off", address=self.address, allowed="everything to everybody"
            )
        elif self._settings.tls_certificate is None and not is_local(self.address):
            log.warning(
                "keys_travel_in_plaintext",
                address=self.address,
                advice="set TASKFORGE_TLS_CERTIFICATE and TASKFORGE_TLS_KEY",
            )

    async def stop(
        self, drain: Sequence[DrainHook] = (), *, hurry: asyncio.Event | None = None
    ) -> None:
        """Drain and stop, within the grace of the settings; at once when `hurry` is set."""
        grace = self._settings.drain_grace.total_seconds()
        deadline = asyncio.get_running_loop().time() + grace
        log.info("draining", grace_seconds=grace)
        await self.health.shut_down()
        stopping = asyncio.create_task(self._drain_and_stop(drain, deadline))
        hurried = asyncio.create_task((hurry or asyncio.Event()).wait())
        try:
            await asyncio.wait([stopping, hurried], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                stopping.cancel()
                await self.grpc_server.stop(None)
        finally:
            hurried.cancel()
        await asyncio.gather(stopping, hurried, return_exceptions=True)
        await asyncio.gather(*(loop.stop() for loop in self._loops))
        log.info("stopped", address=self.address)

    async def _drain_and_stop(self, drain: Sequence[DrainHook], deadline: float) -> None:
        now = asyncio.get_running_loop().time
        if drain:
            try:
                async with asyncio.timeout_at(deadline):
                    outcomes = await asyncio.gather(
                        *(hook() for hook in drain), return_exceptions=True
                    )
            except TimeoutError:
                log.warning("drain_took_too_long")
            else:
                for outcome in outcomes:
                    if isinstance(outcome, Exception):
                        log.error("drain_hook_failed", exc_info=outcome)
        await self.grpc_server.stop(max(0.0, deadline - now()))


def build_server(
    settings: Settings,
    address: str,
    services: Sequence[Service],
    *,
    ready: Callable[[], Awaitable[bool]],
    access: Access,
) -> GrpcServer:
    """Make a server with its services, health and (if switched on) reflection; bind its address.

    Must be called in the event loop that will run it.

    Args:
        settings: Limits, keepalive, reflection and grace.
        address: `host:port` (port 0: a free one) or `unix:/path`.
        services: What it serves.
        ready: Whether the process can do its work now, such as `Database.ready`; asked every 2 s.
        access: Who may call what.

    Raises:
        CannotListen: The address cannot be bound, the certificate is unusable, or authentication
            is off where others than this machine may call.
    """
    if settings.authentication == "off" and not is_local(address):
        raise CannotListen(
            address, "authentication is off, which is allowed on loopback addresses only"
        )
    interceptor = Interceptor(access, [service.descriptor for service in services])
    server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
    names = [service.descriptor.full_name for service in services]
    for service in services:
        service.register(server)
    health = Health(names, ready)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if settings.reflection:
        reflection.enable_server_reflection(
            [*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server
        )
    try:
        certificates = Certificates.of(settings)
        if certificates is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, certificates.credentials())
    except UnusableCertificate as error:
        raise CannotListen(address, str(error)) from None
    except RuntimeError:
        raise CannotListen(address) from None
    if not address.startswith("unix:"):
        address = f"{address.rpartition(':')[0]}:{port}"
    return GrpcServer(settings, server, address, health, access, certificates)


def _tune_garbage_collection() -> None:
    """Look seldom for garbage, and never among what the process has made so far.

    That lives as long as the process, and looking through it stops every call for 30 to 60 ms,
    several times a minute under load.
    """
    gc.collect()
    gc.freeze()
    # A batch makes thousands of objects that live until it is answered: with the usual 700, young
    # ones are looked through several times a batch, which takes a tenth of its time.
    gc.set_threshold(20_000, 20, 50)


async def serve(
    server: GrpcServer,
    *,
    drain: Sequence[DrainHook] = (),
    stop: asyncio.Event | None = None,
    handle_signals: bool = True,
) -> None:
    """Run the server until SIGTERM, SIGINT or `stop`; then drain and stop it. Returns when it has.

    A second signal ends the drain at once. `handle_signals` says that the process is the server's
    own: tests run several in one.
    """
    stop = stop or asyncio.Event()
    hurry = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        log.info("signal", name=number.name)
        if stop.is_set():
            hurry.set()
        stop.set()

    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
    for number in signals:
        loop.add_signal_handler(number, on_signal, number)
    try:
        await server.start()
        if handle_signals:
            # The process is this server's, and starts nothing else.
            _tune_garbage_collection()
        await stop.wait()
        await server.stop(drain, hurry=hurry)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _options(settings: Settings) -> list[tuple[str, int]]:
    """gRPC channel arguments; the units are theirs: milliseconds and bytes."""

    def ms(duration: timedelta) -> int:
        return round(duration.total_seconds() * 1000)

    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.keepalive_time_ms", ms(settings.keepalive_interval)),
        ("grpc.keepalive_timeout_ms", ms(settings.keepalive_timeout)),
        # Lease streams are silent for long; else gRPC would take the clients' pings for abuse.
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_recv_ping_interval_without_data_ms",
            ms(settings.min_client_ping_interval),
        ),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC varies the age by ± 10 % by itself, so that clients do not all come back at once.
        ("grpc.max_connection_age_ms", ms(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", ms(settings.max_connection_age_grace)),
        ("grpc.so_reuseport", int(settings.reuse_port)),
    ]
