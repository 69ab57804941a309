import json
import socket
import threading
from typing import Any

import pytest

from taskforge_cli.bench.lines import Line, LineClosed
from taskforge_cli.bench.orders import Linger, Order, Pace, Pin, Produce, Work, message_of, order_of
from taskforge_cli.bench.producing import payload_of


@pytest.mark.parametrize("size", [2, 3, 78, 79, 100, 1000])
def test_a_payload_is_json_of_exactly_the_size_asked_for(size: int) -> None:
    payload = payload_of(size)
    assert len(payload.encode()) == size
    assert isinstance(json.loads(payload), dict)


@pytest.mark.parametrize(
    "order",
    [
        Produce(addresses=["a"], queues=["q", "r"], jobs=3, payload_bytes=5, by_stubs=True),
        Pace(addresses=["a"], queues=["q"], jobs=1, per_second=0.5, payload_bytes=2, evenly=True),
        Work(addresses=["a", "b"], queues=["q"], target=1, concurrency=7),
        Linger(addresses=["a"], queues=["q"], streams=5, beats=False),
        Pin(dsn="postgresql://"),
    ],
)
def test_an_order_arrives_as_it_was_given(order: Order) -> None:
    assert order_of(json.loads(json.dumps(message_of(order)))) == order


def test_messages_arrive_whole_and_in_order_however_large_they_are() -> None:
    near, far = (Line(each) for each in socket.socketpair(socket.AF_UNIX))
    messages: list[dict[str, Any]] = [{"n": 1}, {"text": "x" * 3_000_000}, {"n": 2}]

    def send() -> None:
        for message in messages:
            near.send(message)

    sender = threading.Thread(target=send)
    sender.start()
    assert [far.receive() for _ in messages] == messages
    sender.join()
    near.close()
    with pytest.raises(LineClosed):
        far.receive()
    far.close()
