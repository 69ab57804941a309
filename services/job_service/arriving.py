"""When what a stream has sent has surely arrived: a write only fills buffers on the way."""

SLOWEST_BYTES_PER_SECOND = 200 * 1024
"""What a link carries at least: a slower one cannot take the largest message, of 2 MiB, in the 10 s
after which its write is given up."""


def transit_seconds(size: int) -> float:
    """How long so many bytes may be under way."""
    return size / SLOWEST_BYTES_PER_SECOND


class Arrivals:
    """The leases that one stream has sent and that are still held, by their sequences.

    A stream keeps its order. When the worker shows that it knows one, by listing or settling it,
    all that were sent before it have arrived as well, and what was sent behind it has not been
    longer on its way than since then. All moments are of the monotonic clock.
    """

    def __init__(self) -> None:
        """Nothing was sent."""
        self._under_way: dict[int, tuple[float, int]] = {}
        """When each was sent, and its bytes, in that order."""
        self._arrived: dict[int, float] = {}
        """The moments at which it was known of each."""
        self._last_known = 0.0

    def sent(self, lease_seq: int, size: int, moment: float) -> None:
        """A lease was written, behind all others."""
        self._under_way[lease_seq] = (moment, size)

    def confirm(self, lease_seq: int, moment: float) -> None:
        """The worker knows a lease."""
        if lease_seq not in self._under_way:
            return
        self._last_known = moment
        arrived = None
        while arrived != lease_seq:
            arrived = next(iter(self._under_way))
            del self._under_way[arrived]
            self._arrived[arrived] = moment

    def ended(self, lease_seq: int, moment: float) -> None:
        """A lease is held no longer: most often since the worker has settled it, and so knew it."""
        if lease_seq in self._under_way:
            self.confirm(lease_seq, moment)
        self._arrived.pop(lease_seq, None)

    def forget(self, lease_seq: int) -> None:
        """A lease is held no longer, and its worker may never have known it."""
        self._under_way.pop(lease_seq, None)
        self._arrived.pop(lease_seq, None)

    def moments(self) -> dict[int, float]:
        """When each has arrived at the latest, if it was not lost on the way."""
        found = dict(self._arrived)
        moment = self._last_known
        for lease_seq, (sent_at, size) in self._under_way.items():
            moment = max(moment, sent_at) + transit_seconds(size)
            found[lease_seq] = moment
        return found
