"""The pace of what any number of relays may carry out: a look every second, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from pemba.errors import PembaError
from pemba.telemetry import Event

INTERVAL_SECONDS = 1.0

log = structlog.get_logger()


async def every_second(once: Callable[[], Awaitable[object]], failed: Event) -> None:
    """Until cancelled; what fails is logged as `failed` and tried again, so being cut off must change nothing."""
    while True:
        try:
            await once()
        except PembaError as error:
            log.warning(failed, error=error.message, reason=error.reason)
        await asyncio.sleep(INTERVAL_SECONDS)
