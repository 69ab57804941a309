"""Pages of queues, over a real server."""

from collections.abc import Iterable
from itertools import chain

import pytest
from grpc import StatusCode
from tests.support.refusals import expect_error
from tests.support.rows import insert_project, insert_queue
from tests.support.stubs import QueueStub

from taskforge.v1 import queue_pb2
from taskforge.v1 import queue_service_pb2 as pb
from taskforge_core.database import Database
from taskforge_core.ids import DEFAULT_PROJECT_ID


async def insert_many(database: Database, count: int) -> None:
    await database.hot.execute(
        "INSERT INTO taskforge.queues (project_id, id, name)"
        " SELECT $1, gen_random_uuid(), 'q' || lpad(i::text, 5, '0')"
        " FROM generate_series(1, $2::int) AS i",
        DEFAULT_PROJECT_ID,
        count,
    )


async def all_pages(stub: QueueStub, page_size: int) -> list[list[queue_pb2.Queue]]:
    pages = []
    token = ""
    while True:
        answer = await stub.ListQueues(pb.ListQueuesRequest(page_size=page_size, page_token=token))
        pages.append(list(answer.queues))
        token = answer.next_page_token
        if not token:
            return pages


def names(queues: Iterable[queue_pb2.Queue]) -> list[str]:
    return [queue.name for queue in queues]


async def test_without_queues_there_is_one_empty_page(queue_stub: QueueStub) -> None:
    assert await all_pages(queue_stub, 10) == [[]]


async def test_pages_together_are_all_queues_by_name(
    queue_stub: QueueStub, database: Database
) -> None:
    await insert_many(database, 7)
    pages = await all_pages(queue_stub, 3)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert names(chain(*pages)) == [f"q{i:05}" for i in range(1, 8)]
    for queue in chain(*pages):
        answer = await queue_stub.GetQueue(pb.GetQueueRequest(queue=queue.id))
        assert answer.queue == queue


async def test_no_empty_page_follows_a_full_one(queue_stub: QueueStub, database: Database) -> None:
    await insert_many(database, 6)
    assert [len(page) for page in await all_pages(queue_stub, 3)] == [3, 3]


async def test_page_sizes_are_coerced(queue_stub: QueueStub, database: Database) -> None:
    await insert_many(database, 1003)
    for asked, got in ((0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)):
        answer = await queue_stub.ListQueues(pb.ListQueuesRequest(page_size=asked))
        assert len(answer.queues) == got
        assert answer.next_page_token


async def test_a_negative_page_size_is_refused(queue_stub: QueueStub) -> None:
    refusal = await expect_error(
        queue_stub.ListQueues(pb.ListQueuesRequest(page_size=-1)),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert list(refusal.field_violations) == ["page_size"]


async def test_pages_stay_stable_while_queues_come_and_go(
    queue_stub: QueueStub, database: Database
) -> None:
    await insert_many(database, 6)
    first = await queue_stub.ListQueues(pb.ListQueuesRequest(page_size=3))
    # Before the page's end: not shown any more. The page's last queue itself: deleted.
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="a"))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="q00003"))
    await queue_stub.DeleteQueue(pb.DeleteQueueRequest(queue="q00004"))
    # Behind it: shown.
    await queue_stub.CreateQueue(pb.CreateQueueRequest(name="q00005-b"))
    second = await queue_stub.ListQueues(
        pb.ListQueuesRequest(page_size=100, page_token=first.next_page_token)
    )
    assert names(second.queues) == ["q00005", "q00005-b", "q00006"]
    assert not second.next_page_token


async def test_the_page_size_may_change_between_pages(
    queue_stub: QueueStub, database: Database
) -> None:
    await insert_many(database, 5)
    first = await queue_stub.ListQueues(pb.ListQueuesRequest(page_size=1))
    second = await queue_stub.ListQueues(
        pb.ListQueuesRequest(page_size=2, page_token=first.next_page_token)
    )
    assert names(second.queues) == ["q00002", "q00003"]


async def test_a_token_of_another_list_or_an_altered_one_is_refused(
    queue_stub: QueueStub, database: Database
) -> None:
    await insert_many(database, 3)
    other = str(await insert_project(database.hot))
    token = (await queue_stub.ListQueues(pb.ListQueuesRequest(page_size=1))).next_page_token
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    for request in (
        pb.ListQueuesRequest(project_id=other, page_token=token),
        pb.ListQueuesRequest(page_token=altered),
        pb.ListQueuesRequest(page_token=token[1:]),
        pb.ListQueuesRequest(page_token="2"),
        pb.ListQueuesRequest(page_token="ü"),
        pb.ListQueuesRequest(page_token="x" * 2048),
    ):
        refusal = await expect_error(
            queue_stub.ListQueues(request), StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"
        )
        assert not refusal.field_violations


async def test_a_token_too_long_for_the_contract_is_refused(queue_stub: QueueStub) -> None:
    refusal = await expect_error(
        queue_stub.ListQueues(pb.ListQueuesRequest(page_token="x" * 2049)),
        StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
    )
    assert list(refusal.field_violations) == ["page_token"]


@pytest.mark.parametrize("page_size", [1, 2, 100])
async def test_no_queue_is_shown_twice(
    queue_stub: QueueStub, database: Database, page_size: int
) -> None:
    for name in ("b", "B", "a-", "a", "Z", "9", "a.b", "a/b", "a:b", "a_b"):
        await insert_queue(database.hot, name)
    pages = await all_pages(queue_stub, page_size)
    shown = names(chain(*pages))
    assert len(shown) == len(set(shown)) == 10
    ordered = await database.hot.fetch("SELECT name FROM taskforge.queues ORDER BY name")
    assert shown == [row["name"] for row in ordered]
