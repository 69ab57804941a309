"""How the work of a load process talks to the process around it, and to the system."""

import asyncio

from taskforge_cli.configuration import load_settings
from taskforge_cli.identifying import given_key, local_key, tls_of
from taskforge_sdk import ApiKey, Tls


class Caller:
    """Who carries out an order: how far it is, when it is to stop, what it shows to servers."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        """Set: the bench has seen enough."""
        self.done = 0
        """How many jobs there are so far."""
        self._news = asyncio.Event()
        self._settings = load_settings()

    @property
    def tls(self) -> Tls | None:
        """How to connect."""
        return tls_of(self._settings)

    def key_for(self, address: str) -> ApiKey | None:
        """What to show there."""
        return given_key(self._settings) or local_key(self._settings, address)

    def tell(self) -> None:
        """Let the bench know at once how far it is."""
        self._news.set()

    async def news(self, seconds: float) -> None:
        """Wait until there is something to tell, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()
