"""The workers: those of the SDK, as users run them, with a handler that does nothing."""

import asyncio
import time

from taskforge_cli.bench.caller import Caller
from taskforge_cli.bench.orders import JOB_TYPE, Outcome, Work
from taskforge_sdk import JobContext, Worker

_GRACE_SECONDS = 5


async def work(order: Work, caller: Caller) -> Outcome:
    """Run the workers until told to stop, or until one of them fails."""
    ids: list[str] = []
    times: list[int] = []
    target = order.target

    async def noop(job: JobContext) -> None:
        ids.append(job.id)
        times.append(time.monotonic_ns())
        caller.done = done = len(ids)
        if done == target:
            caller.tell()

    workers = []
    for number in range(order.workers):
        address = order.addresses[number % len(order.addresses)]
        worker = Worker(
            address,
            queues=order.queues,
            concurrency=order.concurrency,
            worker_id=f"bench-{number}",
            grace=_GRACE_SECONDS,
            api_key=caller.key_for(address),
            tls=caller.tls,
        )
        worker.job(JOB_TYPE)(noop)
        workers.append(worker)
    running = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(caller.stop.wait())
    try:
        await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.stop()
        await asyncio.gather(*running)
    finally:
        stopping.cancel()
        for task in running:
            task.cancel()
    return Outcome(
        jobs=len(ids),
        distinct=len(set(ids)),
        first_ns=times[0] if times else 0,
        last_ns=times[-1] if times else 0,
        starts=dict(zip(ids, times, strict=True)) if order.keep_starts else {},
    )
