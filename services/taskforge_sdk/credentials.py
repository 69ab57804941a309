"""The credential of a client or worker: an API key or a JWT, sent with each call."""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from taskforge_sdk.errors import Unavailable

ApiKey = str | Callable[[], str]
"""A key, or what gives the current one: for tokens that expire and files that are rotated."""

Metadata = tuple[tuple[str, str], ...]

_ANONYMOUS: Final[Metadata] = ()


class Credential:
    """What is sent as `authorization`; the key itself is shown nowhere.

    A function is asked before the first call, and again when a server refuses what it gave: what
    it answers is kept in between. It may block, since asynchronous callers ask it in a thread.
    """

    __slots__ = ("_asking", "_metadata", "_source")

    def __init__(self, source: ApiKey | None) -> None:
        """Take the key; raises ValueError for one that no header can carry."""
        self._source = source if callable(source) else None
        self._asking = threading.Lock()
        self._metadata: Metadata | None = None
        if not callable(source):
            self._metadata = _ANONYMOUS if source is None else _header(source)

    def __repr__(self) -> str:
        return f"<Credential {'given' if self.is_given else 'none'}>"

    @property
    def is_given(self) -> bool:
        """Whether there is a key to send."""
        return self._metadata != _ANONYMOUS

    def metadata(self) -> Metadata:
        """What a call is sent with.

        Raises:
            Unavailable: The function has failed, or gave what is no key.
        """
        with self._asking:
            if self._metadata is None:
                self._metadata = self._ask()
            return self._metadata

    def renew(self, refused: Metadata) -> bool:
        """Ask for another key than the refused one; whether there is one.

        Raises:
            Unavailable: The function has failed, or gave what is no key.
        """
        with self._asking:
            if self._metadata == refused and self._source is not None:
                # Should the function fail, the next call asks it again.
                self._metadata = None
                self._metadata = self._ask()
            return self._metadata != refused

    async def metadata_apart(self) -> Metadata:
        """As `metadata`, for an event loop."""
        # Read once: another thread may renew it.
        known = self._metadata
        return known if known is not None else await asyncio.to_thread(self.metadata)

    async def renew_apart(self, refused: Metadata) -> bool:
        """As `renew`, for an event loop."""
        return self._source is not None and await asyncio.to_thread(self.renew, refused)

    def _ask(self) -> Metadata:
        assert self._source is not None
        try:
            return _header(self._source())
        except Exception as error:
            # Not its words: they may hold what it was given.
            raise Unavailable(f"there is no API key: {type(error).__name__}") from error


def _header(key: str) -> Metadata:
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("api_key: a key is printable ASCII without spaces")
    return (("authorization", f"Bearer {key}"),)
