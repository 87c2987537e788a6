"""Compares all of SpiceDB with the records from time to time, and repairs it where it is told to.

When it is due is in PostgreSQL, so that restarts and any number of relays change nothing: one of them compares at a
time, and a comparison that an operator asked for counts as well.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

import structlog

from pemba.errors import PembaError
from pemba.model import SystemScope
from pemba.relay.backoff import Backoff
from pemba.relay.principal import as_relay
from pemba.service.reconciliation import Options, Reconciler, Summary
from pemba.storage import installation
from pemba.storage.database import Database
from pemba.telemetry import Event

INTERVAL_SECONDS = 60.0
MAX_PAUSE_SECONDS = 3600.0

log = structlog.get_logger()


class ReconcileSchedule:
    """Every `every_seconds`; `apply` also repairs, within the default budget of deletions."""

    def __init__(self, database: Database, reconciler: Reconciler, every_seconds: float, *, apply: bool) -> None:
        if every_seconds <= 0:
            raise ValueError("every_seconds takes more than 0")
        self._database = database
        self._reconciler = reconciler
        self._every_seconds = every_seconds
        self._apply = apply

    async def run_once(self) -> Summary | None:
        """Compare where it is due; None where it is not.  Raises as Reconciler.run."""
        async with self._database.begin(SystemScope("when the store was last compared")) as tx:
            _, age_seconds = await installation.reconciled(tx)
        if age_seconds < self._every_seconds:
            return None
        caller = as_relay(f"reconcile-{uuid.uuid4()}")
        summary: Summary | None = None
        async with aclosing(self._reconciler.run(caller, Options(apply=self._apply))) as events:
            async for event in events:
                summary = event if isinstance(event, Summary) else summary
        return summary

    async def run(self) -> None:
        """Until cancelled: every minute it looks whether it is due; after failures later, up to an hour."""
        backoff = Backoff(max_seconds=MAX_PAUSE_SECONDS)
        while True:
            pause = INTERVAL_SECONDS
            try:
                await self.run_once()
                backoff.succeeded()
            except PembaError as error:
                pause += backoff.failed()
                log.warning(Event.RECONCILE_FAILED, error=error.message, retry_in_seconds=round(pause))
            await asyncio.sleep(pause)
