"""Who waits for a stream to move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from pemba.errors import PembaError
from pemba.model import TenantId


class Watchers:
    """Those who wait, by stream; a stream that nobody waits for any more is dropped by `pause`."""

    def __init__(self) -> None:
        self._futures: dict[TenantId, set[asyncio.Future[None]]] = {}
        self._came = asyncio.Event()

    async def watch(self, streams: Iterable[TenantId]) -> None:
        """Returns once one of these was told of.  Raises what was told instead."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched = [self._futures.setdefault(stream, set()) for stream in streams]
        for futures in watched:
            futures.add(future)
        self._came.set()
        try:
            await future
        finally:
            for futures in watched:
                futures.discard(future)

    def tell(self, stream: TenantId, error: PembaError | None = None) -> None:
        for future in self._futures.pop(stream, ()):
            if not future.done() and error is not None:
                future.set_exception(error)
            elif not future.done():
                future.set_result(None)

    def tell_all(self, error: PembaError | None = None) -> None:
        for stream in list(self._futures):
            self.tell(stream, error)

    async def pause(self, idle_seconds: float, waited_seconds: float) -> None:
        """Shorter while somebody waits, and cut short where somebody comes to wait."""
        for stream in [stream for stream, futures in self._futures.items() if not futures]:
            del self._futures[stream]
        if self._futures:
            await asyncio.sleep(waited_seconds)
            return
        self._came.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._came.wait(), idle_seconds)
