"""Repairs parked operations under every schema that follows the one that refused them, and counts what is parked."""

from __future__ import annotations

import uuid

from pemba.model import SystemScope
from pemba.relay.every_second import every_second
from pemba.relay.principal import as_relay
from pemba.service.parked import Retries
from pemba.storage import parked
from pemba.storage.database import Database
from pemba.telemetry import PARKED_OPERATIONS, TENANTS_CLOSED, Event


class ParkedRetries:
    """Any number of relays may: each operation is repaired once under each schema."""

    def __init__(self, database: Database, retries: Retries) -> None:
        self._database = database
        self._retries = retries

    async def run_once(self) -> int:
        """How many operations are in repairs that were committed."""
        async with self._database.begin(SystemScope("count what is parked")) as tx:
            counts = await parked.counts(tx)
        PARKED_OPERATIONS.set(counts.operations)
        TENANTS_CLOSED.set(counts.closed)
        if not counts.operations:
            return 0
        return await self._retries.of_earlier_schemas(as_relay(f"retry-{uuid.uuid4()}"))

    async def run(self) -> None:
        """Until cancelled: every second, whatever fails."""
        await every_second(self.run_once, Event.PARKED_RETRY_FAILED)
