"""When a call is repeated, and after how long: decisions without clock, chance or network."""

import random
import time
from dataclasses import dataclass

from taskforge_sdk.errors import TaskForgeError, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How calls that may be repeated are repeated.

    Only a call whose repetition has no second effect is repeated, and only when there was no
    answer (`Unavailable`, `DeadlineExceeded`). The wait before the n-th repetition is
    `initial * multiplier ** (n - 1)` seconds, at most `maximum`; the upper half of it is left to
    chance, so that clients that failed together do not return together. No repetition begins after
    the call's timeout.

    `attempt_timeout`: seconds after which one attempt is given up and, if time is left, repeated,
    so that one frozen replica does not use up the whole timeout.
    `max_attempts`: how often the call is made in all; None: as often as the timeout allows.
    """

    initial: float = 0.05
    multiplier: float = 2.0
    maximum: float = 5.0
    attempt_timeout: float = 10.0
    max_attempts: int | None = None

    def backoff(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures in a row (≥ 1); `chance` is in [0, 1)."""
        # The exponent is capped: 2.0 ** 1024 is no float.
        longest = min(self.maximum, self.initial * self.multiplier ** min(failures - 1, 64))
        return longest * (0.5 + chance / 2)

    def wait_before_repeating(
        self,
        error: TaskForgeError,
        *,
        repeatable: bool,
        failures: int,
        time_left: float,
        chance: float,
    ) -> float | None:
        """Seconds to wait before the call is made again; None: raise the error.

        A server's `retry_after` is the least that is waited.
        """
        if not repeatable or not isinstance(error, Unavailable):
            return None
        if self.max_attempts is not None and failures >= self.max_attempts:
            return None
        wait = self.backoff(failures, chance)
        if error.retry_after is not None:
            wait = max(wait, error.retry_after.total_seconds())
        return wait if wait < time_left else None

    def timeout_of_attempt(self, *, repeatable: bool, time_left: float) -> float:
        """Seconds that the next attempt may take."""
        if not repeatable or self.max_attempts == 1:
            return time_left
        return min(time_left, self.attempt_timeout)


class Attempts:
    """The attempts at one call: how long each may take, and the wait after one that failed.

    `seconds`: how long an attempt may take at least, where the work itself is long. That does not
    make the client wait longer for a server that is away: no repetition begins after the timeout.
    """

    __slots__ = ("_deadline", "_failures", "_policy", "_repeatable", "_seconds")

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        repeatable: bool,
        timeout: float,
        seconds: float | None = None,
    ) -> None:
        self._policy = policy
        self._repeatable = repeatable
        self._seconds = seconds
        self._deadline = time.monotonic() + timeout
        self._failures = 0

    def timeout(self) -> float:
        """Seconds that the next attempt may take."""
        time_left = max(0.0, self._deadline - time.monotonic())
        if self._seconds is not None:
            return max(time_left, self._seconds)
        return self._policy.timeout_of_attempt(repeatable=self._repeatable, time_left=time_left)

    def wait_after(self, error: TaskForgeError) -> float:
        """Seconds to wait before the next attempt; raises the error if there is to be none."""
        self._failures += 1
        wait = self._policy.wait_before_repeating(
            error,
            repeatable=self._repeatable,
            failures=self._failures,
            time_left=self._deadline - time.monotonic(),
            chance=random.random(),
        )
        if wait is None:
            raise error
        return wait
