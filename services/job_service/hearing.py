"""What other processes tell this replica: the incoming side of wake-ups (`waking` sends them)."""

from collections.abc import Callable, Sequence
from uuid import UUID

from job_service.background import Background
from job_service.dispatching import Dispatcher
from job_service.reconciling import Reconciler
from job_service.routing import Routes


class Hearing:
    """Acts on notifications. An unknown topic is of a later release and is left alone."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        routes: Routes,
        background: Background,
    ) -> None:
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._routes = routes
        self._background = background
        self._topics: dict[str, Callable[[Sequence[str]], None]] = {
            "ready": self._ready,
            "ended": self._ended,
            "session": self._session,
            "queues": self._queues,
        }

    def hear(self, topic: str, keys: Sequence[str]) -> None:
        """Act on one topic of a notification; no keys means all of it."""
        act = self._topics.get(topic)
        if act is not None:
            act(keys)

    def catch_up(self) -> None:
        """Anything may have been missed: look at everything once."""
        self._routes.forget()
        self._dispatcher.wake_all()
        self._background.start("reconcile all calls", self._reconciler.reconcile_all())
        self._background.start("resubscribe all calls", self._reconciler.resubscribe_all())

    def _ready(self, keys: Sequence[str]) -> None:
        if keys:
            self._dispatcher.wake([UUID(key) for key in keys])
        else:
            self._dispatcher.wake_all()

    def _ended(self, keys: Sequence[str]) -> None:
        if not keys:
            self.catch_up()
        for key in keys:
            project_id, session_id, lease_seq = key.split(":")
            self._dispatcher.leases_ended(UUID(project_id), UUID(session_id), [int(lease_seq, 16)])

    def _session(self, keys: Sequence[str]) -> None:
        if not keys:
            self.catch_up()
        for key in keys:
            self._background.start("reconcile call", self._reconciler.reconcile_session(UUID(key)))

    def _queues(self, keys: Sequence[str]) -> None:
        for project_id in map(UUID, keys) if keys else (None,):
            self._routes.forget(project_id)
            resubscribing = self._reconciler.resubscribe_all(project_id)
            self._background.start("resubscribe calls", resubscribing)
        # A queue may have been made, opened again, or given another priority.
        self._dispatcher.wake_all()
