"""Heartbeat: renews sessions, judges what they list, and stores progress."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from asyncpg import Record

from job_service.arriving import transit_seconds
from job_service.demanding import Demand
from job_service.dispatching import Dispatcher
from job_service.queries import (
    list_held_leases,
    lock_beating_sessions,
    renew_sessions,
    report_progress,
)
from job_service.reconciling import Reading, apply, follow, reading
from job_service.reviewing import (
    MAX_UNSENT_TIME,
    HeldLease,
    Review,
    review,
)
from job_service.waking import Waker
from taskforge.v1 import job_service_pb2 as pb
from taskforge_core.batching import Batcher
from taskforge_core.database import Database
from taskforge_core.ending import EndedLease, LeaseKey, end_leases
from taskforge_core.errors import TaskForgeError, Unavailable
from taskforge_core.json_documents import check_json
from taskforge_core.projects import Projects
from taskforge_core.queries import Executor, lock_leases
from taskforge_core.retrying import Ending, LeaseExpired, Undelivered
from taskforge_core.tokens import LeaseToken, decode_token

Verdict = pb.LeaseVerdict.Verdict

BUSY_SESSION_TRIES = 100
"""How often a heartbeat is tried whose session's row another transaction has locked."""

BUSY_SESSION_SECONDS = 0.03
"""The pause between two of these tries, ± 50 %: 3 s in all, like a wait for any other lock."""

_RETRY_BUSY = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat: its session, and what the worker lists with its progress."""

    session_id: UUID
    sequence: int
    held: Sequence[tuple[str, LeaseToken, str | None]]
    """The token as it was sent, what it says, and the progress if there is news."""
    received_at: float = field(default_factory=time.monotonic)
    """By the monotonic clock."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a batch found out and did."""

    answers: list[pb.HeartbeatResponse | None]
    ended: list[EndedLease]
    sessions: Mapping[UUID, Record]
    """Those that could be locked."""
    held_rows: Mapping[UUID, Sequence[Record]]


class Heartbeats:
    """Serves Heartbeat."""

    def __init__(
        self, database: Database, projects: Projects, dispatcher: Dispatcher, waker: Waker
    ) -> None:
        self._database = database
        self._projects = projects
        self._dispatcher = dispatcher
        self._waker = waker
        self.batcher: Batcher[Beat, pb.HeartbeatResponse | None] = Batcher(
            self._beat_batch, max_items=100
        )
        """None: another transaction has locked the session's row."""

    async def beat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        """Take one heartbeat, in a batch with those of other sessions.

        Raises:
            TaskForgeError: As the contract says of Heartbeat.
        """
        project_id = await self._projects.resolve(request.project_id)
        held = []
        for place, lease in enumerate(request.held):
            progress = lease.progress if lease.HasField("progress") else None
            if progress is not None:
                check_json(progress, f"held[{place}].progress")
            held.append((lease.lease_token, decode_token(lease.lease_token), progress))
        beat = Beat(UUID(request.session_id), request.sequence, held)
        for _ in range(BUSY_SESSION_TRIES):
            answer = await self.batcher.submit(project_id, beat)
            if answer is not None:
                return answer
            # Nobody else in the batch waited for it, and it waits with no connection in hand.
            await asyncio.sleep(BUSY_SESSION_SECONDS * random.uniform(0.5, 1.5))
        raise _session_busy(request.session_id)

    async def _beat_batch(
        self, project_id: UUID, beats: list[Beat]
    ) -> Sequence[pb.HeartbeatResponse | TaskForgeError | None]:
        answers: dict[int, pb.HeartbeatResponse | None] = {}
        left = list(enumerate(beats))
        while left:
            # One heartbeat a session at a time: the later one is judged by what the earlier left.
            now: dict[UUID, tuple[int, Beat]] = {}
            later = []
            for place, beat in left:
                if beat.session_id in now:
                    later.append((place, beat))
                else:
                    now[beat.session_id] = (place, beat)
            round_answers = await self._beat_round(project_id, [beat for _, beat in now.values()])
            for (place, _), answer in zip(now.values(), round_answers, strict=True):
                answers[place] = answer
            left = later
        return [answers[place] for place in range(len(beats))]

    async def _beat_round(
        self, project_id: UUID, beats: Sequence[Beat]
    ) -> list[pb.HeartbeatResponse | None]:
        with ExitStack() as stack:
            readings: dict[UUID, Reading] = {}
            for beat in beats:
                demand = self._dispatcher.of_session(project_id, beat.session_id)
                if demand is not None:
                    readings[beat.session_id] = stack.enter_context(reading(demand))
            async with self._database.hot.acquire() as connection, connection.transaction():
                demands = {session_id: before.demand for session_id, before in readings.items()}
                judged = await _judge(connection, project_id, beats, demands)
            for beat in beats:
                if beat.session_id in judged.sessions and beat.session_id in readings:
                    self._catch_up(readings[beat.session_id], beat, judged)
        self._waker.leases_ended(project_id, judged.ended)
        for before in readings.values():
            self._dispatcher.wake_for(before.demand)
        return judged.answers

    def _catch_up(self, before: Reading, beat: Beat, judged: _Judged) -> None:
        """Let the session's call here know what the heartbeat has found out."""
        demand = before.demand
        demand.resume()
        follow(before, judged.sessions[beat.session_id])
        rows = judged.held_rows.get(beat.session_id, ())
        known = {(row["id"], row["lease_seq"]) for row in rows}
        for text, token, _ in beat.held:
            if (token.job_id, token.lease_seq) in known:
                demand.learn_token(token.lease_seq, text)
        apply(before, rows, self._dispatcher.is_settling)


async def _judge(
    connection: Executor,
    project_id: UUID,
    beats: Sequence[Beat],
    demands: Mapping[UUID, Demand],
) -> _Judged:
    session_ids = [beat.session_id for beat in beats]
    known = await lock_beating_sessions(connection, project_id, session_ids)
    sessions = {row["session_id"]: row for row in known if row["is_locked"]}
    busy = {row["session_id"] for row in known} - sessions.keys()
    held_rows: dict[UUID, list[Record]] = defaultdict(list)
    # Read after the lock: no claim and no rescue of these sessions can come in between.
    for row in await list_held_leases(connection, project_id, list(sessions)):
        held_rows[row["session_id"]].append(row)
    reviews: dict[UUID, Review] = {}
    endings: dict[LeaseKey, Ending] = {}
    for beat in beats:
        session = sessions.get(beat.session_id)
        if session is None or beat.sequence <= session["last_sequence"]:
            continue
        rows = held_rows[beat.session_id]
        held = _held_leases(rows, beat, session, demands.get(beat.session_id))
        named = [token.lease_seq for _, token, _ in beat.held]
        found = review(
            held,
            named,
            frozenset(session["listed"]),
            frozenset(session["omitted"]),
            session["lease_duration"],
        )
        reviews[beat.session_id] = found
        endings |= {(held[seq].job_id, seq): Undelivered() for seq in found.undelivered}
        endings |= {(held[seq].job_id, seq): LeaseExpired() for seq in found.forgotten}
    renewed = await _renew(connection, project_id, beats, reviews)
    news = _news([beat for beat in beats if beat.session_id in reviews], held_rows)
    if news and endings:
        # Two statements lock jobs: so all of them are locked before, in one order.
        keys = sorted(endings.keys() | {(job_id, lease_seq) for job_id, lease_seq, _ in news})
        await lock_leases(connection, project_id, *_columns(keys))
    if news:
        await report_progress(connection, project_id, *_columns(news))
    ended: list[EndedLease] = []
    if endings:
        ended = await end_leases(connection, project_id, endings, answered=False)
    answers = [
        None
        if beat.session_id in busy
        else _answer(beat, sessions.get(beat.session_id), held_rows, renewed)
        for beat in beats
    ]
    return _Judged(answers, ended, sessions, held_rows)


def _held_leases(
    rows: Sequence[Record], beat: Beat, session: Record, demand: Demand | None
) -> dict[int, HeldLease]:
    """What the session holds, each as old as it was for the worker when the heartbeat came."""
    listed = {*session["listed"], *(token.lease_seq for _, token, _ in beat.held)}
    arrived_at = {} if demand is None else _arrivals(demand, listed, beat.received_at)
    # What another call has sent, or is to send, is known here by its row alone.
    unlisted_bytes = sum(row["payload_bytes"] for row in rows if row["lease_seq"] not in listed)
    allowed = timedelta(seconds=transit_seconds(unlisted_bytes))
    streams_here = demand is not None and demand.call_id == session["call_id"]
    if session["has_stream"] and not streams_here:
        allowed += MAX_UNSENT_TIME
    waited = timedelta(seconds=time.monotonic() - beat.received_at)
    found = {}
    for row in rows:
        lease_seq = row["lease_seq"]
        age = row["age"] - waited
        if lease_seq in arrived_at and lease_seq not in listed:
            age = min(age, timedelta(seconds=beat.received_at - arrived_at[lease_seq]))
        elif lease_seq not in listed:
            age -= allowed
        found[lease_seq] = HeldLease(row["id"], lease_seq, row["cancel_requested"], age)
    return found


def _arrivals(demand: Demand, listed: Set[int], moment: float) -> dict[int, float]:
    """When the leases that the call sent, or has to send, have arrived at the latest."""
    for lease_seq in listed & demand.held.keys():
        demand.arrivals.confirm(lease_seq, moment)
    return demand.arrivals.moments() | dict.fromkeys(demand.unsent, moment)


async def _renew(
    connection: Executor,
    project_id: UUID,
    beats: Sequence[Beat],
    reviews: Mapping[UUID, Review],
) -> dict[UUID, datetime]:
    accepted = sorted(
        (beat for beat in beats if beat.session_id in reviews), key=lambda beat: beat.session_id
    )
    if not accepted:
        return {}
    rows = await renew_sessions(
        connection,
        project_id,
        [beat.session_id for beat in accepted],
        [beat.sequence for beat in accepted],
        [_array(reviews[beat.session_id].listed) for beat in accepted],
        [_array(reviews[beat.session_id].omitted) for beat in accepted],
    )
    return {row["session_id"]: row["expires_at"] for row in rows}


def _news(
    beats: Sequence[Beat], held_rows: Mapping[UUID, Sequence[Record]]
) -> list[tuple[str, int, str]]:
    """The progress of what each session holds itself, and of nothing else it names; ascending."""
    news = []
    for beat in beats:
        held = {row["lease_seq"] for row in held_rows.get(beat.session_id, ())}
        news += [
            (token.job_id, token.lease_seq, progress)
            for _, token, progress in beat.held
            if progress is not None and token.lease_seq in held
        ]
    return sorted(news)


def _answer(
    beat: Beat,
    session: Record | None,
    held_rows: Mapping[UUID, Sequence[Record]],
    renewed: Mapping[UUID, datetime],
) -> pb.HeartbeatResponse:
    held = {
        (row["id"], row["lease_seq"]): row["cancel_requested"]
        for row in held_rows.get(beat.session_id, ())
    }
    response = pb.HeartbeatResponse(
        verdicts=[
            pb.LeaseVerdict(
                lease_token=text, verdict=_verdict(held.get((token.job_id, token.lease_seq)))
            )
            for text, token, _ in beat.held
        ],
        reconnect=session is None or session["must_reconnect"],
    )
    expires_at: datetime | None = renewed.get(beat.session_id)
    if expires_at is None and session is not None:
        expires_at = session["expires_at"]
    if expires_at is not None:
        response.expires_at.FromDatetime(expires_at)
    return response


def _verdict(cancel_requested: bool | None) -> "Verdict.ValueType":
    if cancel_requested is None:
        return Verdict.VERDICT_LOST
    return Verdict.VERDICT_CANCEL_REQUESTED if cancel_requested else Verdict.VERDICT_HELD


def _session_busy(session_id: str) -> Unavailable:
    return Unavailable(
        "DATABASE_UNAVAILABLE",
        f"another transaction holds the session {session_id}; try again",
        retry_after=_RETRY_BUSY,
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _array(seqs: frozenset[int]) -> str:
    """A bigint[] as text: Postgres cannot unnest an array of arrays of different lengths."""
    return "{" + ",".join(map(str, sorted(seqs))) + "}"
