"""The sweeper: withdraws shares when they are due, by the database's clock."""

from __future__ import annotations

import asyncio

import structlog

from pemba.errors import PembaError
from pemba.service.share_expiry import ShareExpiry

INTERVAL_SECONDS = 1.0
"""Between two looks at most; earlier where something is due earlier."""
MIN_PAUSE_SECONDS = 0.01

log = structlog.get_logger()


class Expiry:
    """Every relay sweeps: what one has withdrawn, no other finds."""

    def __init__(self, shares: ShareExpiry) -> None:
        self._shares = shares

    async def run_once(self) -> int:
        """Withdraw until nothing is due; how many shares that were."""
        withdrawn = 0
        while found := await self._shares.run_once():
            withdrawn += found
        return withdrawn

    async def run(self) -> None:
        """Until cancelled, whatever fails; a mutation that is cut off changed nothing."""
        while True:
            pause = INTERVAL_SECONDS
            try:
                await self.run_once()
                pause = min(pause, max(await self._shares.seconds_left(), MIN_PAUSE_SECONDS))
            except PembaError as error:
                log.warning("expiry.failed", error=error.message, reason=error.reason)
            await asyncio.sleep(pause)
