"""What it costs to have many workers that wait for jobs."""

import time

from taskforge_cli.bench.measures import Metrics
from taskforge_cli.bench.orders import Linger
from taskforge_cli.bench.scenarios.checking import require
from taskforge_cli.bench.stage import Stage
from taskforge_cli.bench.usage import job_servers_rss, job_servers_seconds
from taskforge_cli.failures import CommandError

_OPEN_SECONDS = 60.0
_POLL_SECONDS = 0.2
_QUIET_SECONDS = 2.0


def idle_streams(stage: Stage) -> Metrics:
    """Open lease streams without heartbeats."""
    return _idle(stage, beats=False)


def idle_streams_with_heartbeats(stage: Stage) -> Metrics:
    """Open lease streams of sessions that send a heartbeat each ten seconds."""
    return _idle(stage, beats=True)


def _idle(stage: Stage, *, beats: bool) -> Metrics:
    if stage.services is None:
        raise CommandError("this scenario needs a system of its own")
    stage.warm_up()
    queue = stage.make_queue()
    streams, seconds = stage.sizes.streams, stage.sizes.idle_seconds
    before = job_servers_rss(stage.services())
    lingering = stage.loads("streams")
    order = Linger(addresses=stage.addresses, queues=[queue.name], streams=streams, beats=beats)
    for load in lingering:
        load.give(order)
    _until_open(stage, streams)
    time.sleep(_QUIET_SECONDS)
    with stage.usage() as usage:
        began = job_servers_seconds(stage.services())
        time.sleep(seconds)
        used = job_servers_seconds(stage.services()) - began
    after = job_servers_rss(stage.services())
    require(all(load.outcome() is None for load in lingering), "streams have ended by themselves")
    stage.crew.stop(lingering)
    return usage.with_memory(
        {
            "server_core_percent": used / seconds * 100,
            "postgres_core_percent": (usage.cpu.postgres or 0.0) / seconds * 100,
            "kib_per_stream": (after - before) / 1024 / streams,
        }
    )


def _until_open(stage: Stage, streams: int) -> None:
    deadline = time.monotonic() + _OPEN_SECONDS
    while True:
        is_open = sum(each.connected for each in stage.client.list_workers(page_size=1000))
        if is_open >= streams:
            return
        if time.monotonic() > deadline:
            raise CommandError(f"only {is_open:,} of {streams:,} lease streams are open")
        time.sleep(_POLL_SECONDS)
