"""What people ask of JobService about its workers: who takes jobs, and how many."""

from taskforge.v1 import job_service_pb2 as pb
from taskforge_sdk import calls, conversion
from taskforge_sdk.calls import Call, Listing, Page
from taskforge_sdk.models import WorkerInfo
from taskforge_sdk.requests.building import request


@request
def update_worker(
    project_id: str,
    session_id: str,
    *,
    max_in_flight: int | None = None,
    draining: bool | None = None,
) -> Call[WorkerInfo]:
    """Change how many jobs a worker may hold at once, and whether it gets any. NotFound.

    What is None stays as it is. It holds at once, on an open stream too; `max_in_flight` until the
    worker opens its next stream, `draining` until it is set anew. What the worker holds beyond that
    it finishes. A `Worker` never runs more than its `concurrency`: what it gets beyond that waits.
    """
    message = pb.UpdateWorkerRequest(
        project_id=project_id, session_id=session_id, max_in_flight=max_in_flight, draining=draining
    )
    return calls.UPDATE_WORKER.call(message, lambda answer: conversion.worker(answer.worker))


@request
def list_workers(project_id: str, *, page_size: int = 100) -> Listing[WorkerInfo]:
    """List the workers by `worker_id`; pages are fetched as they are needed.

    These are the sessions that hold jobs, have an open stream, or have sent a heartbeat within a
    day.
    """

    def page(token: str) -> Call[Page[WorkerInfo]]:
        message = pb.ListWorkersRequest(
            project_id=project_id, page_size=page_size, page_token=token
        )
        return calls.LIST_WORKERS.call(
            message,
            lambda answer: Page(
                [conversion.worker(each) for each in answer.workers], answer.next_page_token
            ),
        )

    return Listing(page)
