"""Readiness: closed until SpiceDB is seen to hold what this build needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pemba.errors import PembaError, Reason, Unavailable
from pemba.spicedb import schema
from pemba.spicedb.client import SpiceDB
from pemba.telemetry import Event

CLOSED_SECONDS = 1.0
OPEN_SECONDS = 30.0

log = structlog.get_logger()


class SchemaGate:
    """Opens at the first look that finds everything.

    An outage of SpiceDB does not close it again, since changes of records go on in one; a schema that lost something
    does.
    """

    def __init__(self, spicedb: SpiceDB) -> None:
        self._spicedb = spicedb
        self._closed: Unavailable | None = Unavailable(
            Reason.SCHEMA_MISMATCH, "SpiceDB's schema has not been looked at yet"
        )

    @property
    def is_open(self) -> bool:
        return self._closed is None

    def raise_if_not_ready(self) -> None:
        """Raises Unavailable (SCHEMA_MISMATCH, SPICEDB_UNAVAILABLE), which says what is missing."""
        closed = self._closed
        if closed is not None:
            # A new one each time: one that is raised again and again holds the frames of all who saw it.
            raise Unavailable(closed.reason, closed.message, retry_seconds=closed.retry_seconds)

    async def check_once(self) -> bool:
        """Look, and open or close; whether it is open now."""
        try:
            missing = await schema.missing(self._spicedb)
        except PembaError as error:
            if not self.is_open:
                self._close(Unavailable(Reason.SPICEDB_UNAVAILABLE, f"waiting for SpiceDB: {error.message}"))
            return self.is_open
        if missing:
            lacks = ", ".join(change.name for change in missing[:10])
            self._close(
                Unavailable(
                    Reason.SCHEMA_MISMATCH,
                    f"SpiceDB's schema lacks what this build needs: {lacks}; run `pemba schema apply`",
                    retry_seconds=5,
                )
            )
        elif not self.is_open:
            log.info(Event.SCHEMA_READY)
            self._closed = None
        return self.is_open

    async def run(self, tell: Callable[[bool], Awaitable[None]] | None = None) -> None:
        """Look every second while closed, every 30 while open, and `tell` each time whether it is open."""
        while True:
            is_open = await self.check_once()
            if tell is not None:
                await tell(is_open)
            await asyncio.sleep(OPEN_SECONDS if self.is_open else CLOSED_SECONDS)

    def _close(self, why: Unavailable) -> None:
        if self._closed is None or self._closed.message != why.message:
            log.warning(Event.SCHEMA_NOT_READY, why=why.message)
        self._closed = why
