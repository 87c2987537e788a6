"""NOTIFY after commit, and the relay's own session: LISTEN, and the lock that lets one relay deliver.

A NOTIFY names the tenant and nothing else, and is only a hint: it may be lost, and anybody may send one.  It is sent
outside the mutation's transaction, since a NOTIFY inside makes every COMMIT take one global lock in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import structlog

from pemba.errors import BackendError
from pemba.model import TenantId
from pemba.storage.database import API_ROLE, CONNECT_SECONDS, RELAY_ROLE, Database
from pemba.storage.errors import CONNECTION_FAILURES, translated

CHANNEL = "pemba_outbox"
MAX_PENDING = 10_000

_LOCK = 0x72656C6179  # "relay"

CERTAIN_SECONDS = 8.0
"""For so long after an answer nobody else can have the lock: less than `idle_session_timeout` below."""

# PostgreSQL must end the session of a relay that fell silent, or nobody gets its lock: a relay that lives asks every
# two seconds, so ten of silence are enough, whether the connection looks alive or not.
_SESSION_SETTINGS = {
    "role": RELAY_ROLE,
    "application_name": "pemba relay",
    "idle_session_timeout": "10000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

log = structlog.get_logger()


class Notifier:
    """Sends NOTIFYs: one flush at a time, so what comes while one is under way goes with the next."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: set[TenantId] = set()
        self._flushing: asyncio.Task[None] | None = None

    def notify(self, tenant_id: TenantId) -> None:
        """Say soon that the tenant has something due; never waits, never fails."""
        if len(self._pending) < MAX_PENDING:
            self._pending.add(tenant_id)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def close(self) -> None:
        if self._flushing is not None:
            await self._flushing

    async def _flush(self) -> None:
        while self._pending:
            tenants, self._pending = list(self._pending), set()
            try:
                with translated():
                    async with self._database.connection(API_ROLE) as connection:
                        await connection.execute(
                            "SELECT pg_notify($1, tenant_id) FROM unnest($2::text[]) AS due (tenant_id)",
                            CHANNEL,
                            tenants,
                        )
            except BackendError as error:
                log.debug("notify.lost", error=error.message)


class RelaySession:
    """One connection for the life of a relay's turn: it listens, and holds the lock that only one can hold."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._ended = asyncio.Event()
        self._asked = -CERTAIN_SECONDS
        connection.add_termination_listener(lambda _: self._ended.set())

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[RelaySession]:
        """Raises Unavailable.  PostgreSQL lets go of the lock when the connection ends, however it ends."""
        with translated():
            connection = await asyncpg.connect(
                url,
                timeout=CONNECT_SECONDS,
                command_timeout=5,
                server_settings=_SESSION_SETTINGS,
            )
        try:
            yield cls(connection)
        finally:
            with suppress(*CONNECTION_FAILURES):
                await connection.close(timeout=2)

    async def try_lock(self) -> bool:
        """Whether this session now is the one that delivers."""
        asked = _now()
        with translated():
            locked = bool(await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK))
        self._asked = asked
        return locked

    def is_certain(self) -> bool:
        """Whether PostgreSQL cannot have ended this session yet, and given its lock away."""
        return not self._ended.is_set() and _now() - self._asked < CERTAIN_SECONDS

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with the payload of every NOTIFY from now on."""
        with translated():
            await self._connection.add_listener(CHANNEL, lambda _c, _p, _ch, payload: heard(str(payload)))

    async def ended(self, check_seconds: float) -> None:
        """Return when the connection is gone; every `check_seconds` it is asked, since a dead peer says nothing."""
        while not self._ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), check_seconds)
                return
            asked = _now()
            try:
                await self._connection.execute("SELECT 1")
                self._asked = asked
            except CONNECTION_FAILURES:
                return


def _now() -> float:
    """Seconds on a clock that runs on while the machine, and with it every other clock of ours, is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
