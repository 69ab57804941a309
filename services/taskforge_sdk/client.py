"""The asynchronous client: the shared calls, sent over `grpc.aio` channels."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

import grpc
import grpc.aio

from taskforge_sdk import channels
from taskforge_sdk.calls import Batch, Call, Item, Listing, Result
from taskforge_sdk.connecting import Connected
from taskforge_sdk.credentials import Metadata
from taskforge_sdk.errors import TaskForgeError, Unauthenticated, Unavailable, from_rpc_error
from taskforge_sdk.requests import admin, jobs, queues, workers

P = ParamSpec("P")

logger = logging.getLogger("taskforge.client")


class Caller(Connected[grpc.aio.Channel]):
    """Sends calls, and repeats those that may be."""

    def _open_channel(self, address: str) -> grpc.aio.Channel:
        return channels.open_channel(address, self._security.credentials)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels that the client opened itself."""
        for channel in self._forget_channels():
            await channel.close(None)

    async def send(self, call: Call[Result]) -> Result:
        """Send a call, repeating it as the retry policy says; raises TaskForgeError.

        A call whose key is refused is repeated once, where there is another key.
        """
        attempts = self._attempts(call)
        has_renewed = False
        while True:
            try:
                metadata = await self._credential.metadata_apart()
                return call.decode(await self._send_once(call, attempts.timeout(), metadata))
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            except Unavailable as keyless:
                error = keyless
            if isinstance(error, Unauthenticated) and not has_renewed:
                has_renewed = True
                if await self._credential.renew_apart(metadata):
                    continue
            wait = attempts.wait_after(error)
            logger.debug("%s is repeated in %.3f s: %s", call.rpc.name, wait, error)
            await asyncio.sleep(wait)

    async def _send_once(self, call: Call[Result], seconds: float, metadata: Metadata) -> Any:
        line = self._take_line(call.rpc.service)
        try:
            method = getattr(line.stub, call.rpc.name)
            return await method(call.request, timeout=seconds, metadata=metadata)
        finally:
            for channel in self._give_back(line):
                await channel.close(None)


def unary(
    build: Callable[Concatenate[str, P], Call[Result]],
) -> Callable[Concatenate[Caller, P], Coroutine[Any, Any, Result]]:
    """A method that sends one call."""

    @wraps(build)
    async def method(self: Caller, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return await self.send(build(self.project_id, *args, **kwargs))

    return method


def listing(
    build: Callable[Concatenate[str, P], Listing[Item]],
) -> Callable[Concatenate[Caller, P], AsyncIterator[Item]]:
    """A method that goes through a list, page by page."""

    @wraps(build)
    async def method(self: Caller, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Item]:
        pages = build(self.project_id, *args, **kwargs)
        token = ""
        while True:
            page = await self.send(pages.page(token))
            for item in page.items:
                yield item
            token = page.next_page_token
            if not token:
                return

    return method


def batched(
    build: Callable[Concatenate[str, P], list[Batch[Item]]],
) -> Callable[Concatenate[Caller, P], Coroutine[Any, Any, list[Item]]]:
    """A method that sends one call after the other and joins their results."""

    @wraps(build)
    async def method(self: Caller, /, *args: P.args, **kwargs: P.kwargs) -> list[Item]:
        results: list[Item] = []
        failed: TaskForgeError | None = None
        for batch in build(self.project_id, *args, **kwargs):
            if failed is None:
                try:
                    items = await self.send(batch.call)
                except TaskForgeError as error:
                    if not results:
                        raise
                    failed = error
            results += items if failed is None else batch.otherwise(failed)
        return results

    return method


class Client(Caller):
    """The asynchronous client of the services.

    Its methods take and return the SDK's values and raise TaskForgeError alone. `timeout` is the
    most that a call takes, its repetitions included (default 30 s); only `purge_queue` and
    `redrive_jobs`, which go through many jobs, may take 10 minutes. `project_id` is needed only
    where there is more than one project.

    `api_key`: an API key or a JWT, or a function that gives the current one; it is asked before the
    first call, and again when a server refuses what it gave. Without `tls` a key goes to this
    machine only, unless `allow_plaintext_key` says that the network itself is trusted: else it is a
    ValueError. `tls`: connect over TLS; default plaintext.

    Channels given as arguments are not closed by the client.
    Use it in one event loop, as `async with Client() as client: …`.
    """

    create_queue = unary(queues.create_queue)
    get_queue = unary(queues.get_queue)
    list_queues = listing(queues.list_queues)
    update_queue = unary(queues.update_queue)
    pause_queue = unary(queues.pause_queue)
    resume_queue = unary(queues.resume_queue)
    delete_queue = unary(queues.delete_queue)
    queue_stats = unary(queues.queue_stats)
    purge_queue = unary(queues.purge_queue)
    redrive_jobs = unary(queues.redrive_jobs)
    create_job = unary(jobs.create_job)
    create_jobs = batched(jobs.create_jobs)
    get_job = unary(jobs.get_job)
    list_jobs = listing(jobs.list_jobs)
    job_stats = unary(jobs.job_stats)
    cancel_job = unary(jobs.cancel_job)
    retry_job = unary(jobs.retry_job)
    list_workers = listing(workers.list_workers)
    update_worker = unary(workers.update_worker)
    create_organisation = unary(admin.create_organisation)
    get_organisation = unary(admin.get_organisation)
    list_organisations = listing(admin.list_organisations)
    update_organisation = unary(admin.update_organisation)
    create_project = unary(admin.create_project)
    get_project = unary(admin.get_project)
    list_projects = listing(admin.list_projects)
    update_project = unary(admin.update_project)
    create_api_key = unary(admin.create_api_key)
    get_api_key = unary(admin.get_api_key)
    list_api_keys = listing(admin.list_api_keys)
    revoke_api_key = unary(admin.revoke_api_key)
    list_audit_entries = listing(admin.list_audit_entries)
