"""Calls take from the queues that their requests mean by now, whatever was deleted and remade."""

from uuid import UUID

from tests.support.demands import demand
from tests.support.job_use_cases import JobUseCases
from tests.support.rows import insert_jobs, insert_project, insert_queue
from tests.support.waiting import eventually

from job_service.demanding import Demand
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


def queues_of(call: Demand) -> list[UUID] | None:
    """The queues that it takes from; None: all."""
    queue_ids = call.subscription.queue_ids
    return None if queue_ids is None else list(queue_ids)


async def remake(database: Database, queue_id: UUID, name: str) -> UUID:
    """Delete a queue and make another one of its name."""
    await database.hot.execute(
        "UPDATE taskforge.queues SET deleted_at = clock_timestamp() WHERE id = $1", queue_id
    )
    return await insert_queue(database.hot, name)


async def test_a_call_takes_from_the_queue_that_bears_the_name_now(
    replica: JobUseCases, database: Database
) -> None:
    first = await insert_queue(database.hot, "first")
    second = await insert_queue(database.hot, "second")
    named = demand(queue_ids=(first, second), queues=("first", str(second).upper()))
    by_id = demand(queue_ids=(first,), queues=(str(first),))
    of_all = demand()
    await replica.open(named, by_id, of_all)
    for call in (named, by_id, of_all):
        replica.dispatcher.admit(call)
    again = await remake(database, first, "first")
    await replica.reconciler.resubscribe_all(DEFAULT_PROJECT_ID)
    assert queues_of(named) == sorted([again, second])
    # An id means this one queue and never another.
    assert queues_of(by_id) == []
    assert queues_of(of_all) is None
    # It looks by itself too, and would take the job for the other.
    of_all.is_draining = True
    [job_id] = await insert_jobs(database.hot, again)
    replica.dispatcher.wake([again])

    async def has_it() -> bool:
        return [leased.id for leased in named.outbox] == [job_id]

    await eventually(has_it, "the job of the new queue is leased")
    for call in (named, by_id, of_all):
        replica.dispatcher.remove(call)


async def test_a_call_whose_only_queue_is_gone_waits_for_one_of_its_name(
    replica: JobUseCases, database: Database
) -> None:
    queue_id = await insert_queue(database.hot, "q")
    call = demand(queue_ids=(queue_id,), queues=("q",))
    await replica.open(call)
    await database.hot.execute("UPDATE taskforge.queues SET deleted_at = clock_timestamp()")
    await replica.reconciler.resubscribe([call])
    assert queues_of(call) == []
    again = await insert_queue(database.hot, "q")
    await replica.reconciler.resubscribe([call])
    assert queues_of(call) == [again]


async def test_calls_of_other_projects_keep_their_queues(
    replica: JobUseCases, database: Database
) -> None:
    other = await insert_project(database.hot)
    foreign = await insert_queue(database.hot, "q", project_id=other)
    own = await insert_queue(database.hot, "q")
    call = demand(project_id=other, queue_ids=(foreign,), queues=("q",))
    await replica.open(call)
    await remake(database, own, "q")
    await replica.reconciler.resubscribe_all(DEFAULT_PROJECT_ID)
    await replica.reconciler.resubscribe_all()
    assert queues_of(call) == [foreign]
