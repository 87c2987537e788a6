"""The sweeper: withdraws shares, and roles of API keys, when they are due, by the database's clock."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from pemba.errors import PembaError
from pemba.telemetry import Event

INTERVAL_SECONDS = 1.0
"""Between two looks at most; earlier where something is due earlier."""
MIN_PAUSE_SECONDS = 0.01

log = structlog.get_logger()


class Expiring(Protocol):
    """Shares, or API keys."""

    async def run_once(self) -> int:
        """Withdraw some of what is due; how many they were."""

    async def seconds_left(self) -> float:
        """Until the next one is due."""


class Expiry:
    """Every relay sweeps: what one has withdrawn, no other finds."""

    def __init__(self, expiring: Expiring) -> None:
        self._expiring = expiring

    async def run_once(self) -> int:
        """Withdraw until nothing is due; how many they were."""
        withdrawn = 0
        while found := await self._expiring.run_once():
            withdrawn += found
        return withdrawn

    async def run(self) -> None:
        """Until cancelled, whatever fails; a mutation that is cut off changed nothing."""
        while True:
            pause = INTERVAL_SECONDS
            try:
                await self.run_once()
                pause = min(pause, max(await self._expiring.seconds_left(), MIN_PAUSE_SECONDS))
            except PembaError as error:
                log.warning(Event.EXPIRY_FAILED, error=error.message, reason=error.reason)
            await asyncio.sleep(pause)
