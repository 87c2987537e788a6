"""Deletes what is old: delivered outbox rows, remembered responses of idempotent calls, events of the audit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pemba.errors import BackendError
from pemba.storage import delivery
from pemba.storage.database import Database
from pemba.telemetry import Event

IDEMPOTENCY_SECONDS = 24 * 3600 + 3600
"""Promised are 24 hours; an hour more, for clocks and slow calls."""

BATCH = 1000
INTERVAL_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Pruned:
    outbox_rows: int
    responses: int
    audit_events: int

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.outbox_rows, self.responses, self.audit_events


class Retention:
    """Keeps delivered rows for `keep_seconds`, events of the audit for `audit_seconds` (0: for ever).

    A small batch at a time, so that nothing waits behind it.
    """

    def __init__(self, database: Database, keep_seconds: float, audit_seconds: float = 0) -> None:
        if keep_seconds <= 0 or audit_seconds < 0:
            raise ValueError("keep_seconds takes more than 0, audit_seconds 0 or more")
        self._database = database
        self._keep_seconds = keep_seconds
        self._audit_seconds = audit_seconds

    async def run_once(self) -> Pruned:
        """Delete one batch of each; never a row beyond what is delivered."""
        async with self._database.begin_relay() as tx:
            rows = await delivery.prune_outbox(tx, self._keep_seconds, BATCH)
        async with self._database.begin_relay() as tx:
            responses = await delivery.prune_idempotency(tx, IDEMPOTENCY_SECONDS, BATCH)
        events = 0
        if self._audit_seconds:
            async with self._database.begin_relay() as tx:
                events = await delivery.prune_audit(tx, self._audit_seconds, BATCH)
        return Pruned(rows, responses, events)

    async def run(self, stopping: asyncio.Event, is_ours: Callable[[], bool]) -> None:
        """Until `stopping` is set: every minute, and at once again while a batch was full.

        `is_ours` says whether it is for this relay to do: one is enough, more would only wait for each other.
        """
        while not stopping.is_set():
            pause = INTERVAL_SECONDS
            try:
                if is_ours() and BATCH in (await self.run_once()).counts:
                    pause = 1.0
            except BackendError as error:
                log.warning(Event.RETENTION_FAILED, error=error.message)
            try:
                await asyncio.wait_for(stopping.wait(), pause)
            except TimeoutError:
                continue
