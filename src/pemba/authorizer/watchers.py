"""Who waits for a stream to move, and who follows one for as long as they like."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

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


class Followers:
    """Those who follow streams: nobody looks more often for their sake."""

    def __init__(self) -> None:
        self._news: dict[TenantId, set[asyncio.Event]] = {}

    @contextmanager
    def following(self, streams: Iterable[TenantId]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these may have moved; whoever follows clears it."""
        news = asyncio.Event()
        followed = frozenset(streams)
        for stream in followed:
            self._news.setdefault(stream, set()).add(news)
        try:
            yield news
        finally:
            for stream in followed:
                self._news[stream].discard(news)
                if not self._news[stream]:
                    del self._news[stream]

    def streams(self) -> frozenset[TenantId]:
        """Those that somebody follows."""
        return frozenset(self._news)

    def tell(self, stream: TenantId) -> None:
        for news in self._news.get(stream, ()):
            news.set()

    def tell_all(self) -> None:
        for stream in self._news:
            self.tell(stream)
