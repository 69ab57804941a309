"""Workers without a stream behind them, which hold jobs and send heartbeats."""

from uuid import UUID, uuid4

from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.rows import insert_jobs, insert_queue

from job_service.demanding import Demand
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


class Worker:
    """A session with a stream on a replica, and the leases that it got."""

    def __init__(self, use: JobUseCases, call: Demand, tokens: list[str], jobs: list[UUID]) -> None:
        self.use = use
        self.call = call
        self.tokens = tokens
        self.jobs = jobs

    def key(self, place: int) -> tuple[str, int]:
        return str(self.jobs[place]), sorted(self.call.held)[place]

    async def beat(self, sequence: int, *tokens: str) -> list["pb.LeaseVerdict.Verdict.ValueType"]:
        answer = await self.use.beat(self.call, sequence, tokens)
        assert [verdict.lease_token for verdict in answer.verdicts] == list(tokens)
        return [verdict.verdict for verdict in answer.verdicts]


async def worker(use: JobUseCases, count: int, *, project_id: UUID = DEFAULT_PROJECT_ID) -> Worker:
    """A worker that holds so many jobs of a new queue."""
    queue_id = await insert_queue(use.database.hot, f"queue {uuid4()}", project_id=project_id)
    jobs = await insert_jobs(
        use.database.hot, queue_id, priorities=[0] * count, project_id=project_id
    )
    call = demand(max_in_flight=count, queue_ids=(queue_id,), project_id=project_id)
    await use.open(call)
    await use.group(call).run_once()
    leases = use.deliver(call)
    tokens = [leased.message.lease_token for leased in leases]
    assert [leased.id for leased in leases] == jobs
    return Worker(use, call, tokens, jobs)


async def ripen(database: Database, *workers: Worker) -> None:
    """Let every lease be old enough for a heartbeat to have to list it; what the workers' calls
    have sent arrived as long ago."""
    for each in workers:
        arrivals = each.call.arrivals
        arrivals._last_known -= 11
        for lease_seq, (moment, size) in arrivals._under_way.items():
            arrivals._under_way[lease_seq] = (moment - 11, size)
        for lease_seq in arrivals._arrived:
            arrivals._arrived[lease_seq] -= 11
    await database.hot.execute(
        "UPDATE taskforge.jobs SET started_at = started_at - interval '11 s' WHERE status = 3"
    )
