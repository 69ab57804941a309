"""The blocking client: the shared calls, sent over gRPC's blocking channels."""

import logging
import time
from collections.abc import Callable, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self

import grpc

from taskforge_sdk import channels
from taskforge_sdk.calls import Batch, Call, Item, Listing, Result
from taskforge_sdk.connecting import Connected
from taskforge_sdk.credentials import Metadata
from taskforge_sdk.errors import TaskForgeError, Unauthenticated, Unavailable, from_rpc_error
from taskforge_sdk.requests import admin, jobs, queues, workers

P = ParamSpec("P")

logger = logging.getLogger("taskforge.client")


class BlockingCaller(Connected[grpc.Channel]):
    """Sends calls, and repeats those that may be."""

    def _open_channel(self, address: str) -> grpc.Channel:
        return channels.open_blocking_channel(address, self._security.credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channels that the client opened itself."""
        for channel in self._forget_channels():
            channel.close()

    def send(self, call: Call[Result]) -> Result:
        """Send a call, repeating it as the retry policy says; raises TaskForgeError.

        A call whose key is refused is repeated once, where there is another key.
        """
        attempts = self._attempts(call)
        has_renewed = False
        while True:
            try:
                metadata = self._credential.metadata()
                return call.decode(self._send_once(call, attempts.timeout(), metadata))
            except grpc.RpcError as rpc_error:
                error = from_rpc_error(rpc_error)
            except Unavailable as keyless:
                error = keyless
            if isinstance(error, Unauthenticated) and not has_renewed:
                has_renewed = True
                if self._credential.renew(metadata):
                    continue
            wait = attempts.wait_after(error)
            logger.debug("%s is repeated in %.3f s: %s", call.rpc.name, wait, error)
            time.sleep(wait)

    def _send_once(self, call: Call[Result], seconds: float, metadata: Metadata) -> Any:
        line = self._take_line(call.rpc.service)
        try:
            method = getattr(line.stub, call.rpc.name)
            return method(call.request, timeout=seconds, metadata=metadata)
        finally:
            for channel in self._give_back(line):
                channel.close()


def unary(
    build: Callable[Concatenate[str, P], Call[Result]],
) -> Callable[Concatenate[BlockingCaller, P], Result]:
    """A method that sends one call."""

    @wraps(build)
    def method(self: BlockingCaller, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self.send(build(self.project_id, *args, **kwargs))

    return method


def listing(
    build: Callable[Concatenate[str, P], Listing[Item]],
) -> Callable[Concatenate[BlockingCaller, P], Iterator[Item]]:
    """A method that goes through a list, page by page."""

    @wraps(build)
    def method(self: BlockingCaller, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Item]:
        pages = build(self.project_id, *args, **kwargs)
        token = ""
        while True:
            page = self.send(pages.page(token))
            yield from page.items
            token = page.next_page_token
            if not token:
                return

    return method


def batched(
    build: Callable[Concatenate[str, P], list[Batch[Item]]],
) -> Callable[Concatenate[BlockingCaller, P], list[Item]]:
    """A method that sends one call after the other and joins their results."""

    @wraps(build)
    def method(self: BlockingCaller, /, *args: P.args, **kwargs: P.kwargs) -> list[Item]:
        results: list[Item] = []
        failed: TaskForgeError | None = None
        for batch in build(self.project_id, *args, **kwargs):
            if failed is None:
                try:
                    items = self.send(batch.call)
                except TaskForgeError as error:
                    if not results:
                        raise
                    failed = error
            results += items if failed is None else batch.otherwise(failed)
        return results

    return method


class BlockingClient(BlockingCaller):
    """The blocking client of the services, for programs without an event loop.

    As `Client`, call by call, with iterators in the place of asynchronous ones. It may be shared
    between threads.
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
