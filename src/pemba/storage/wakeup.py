"""NOTIFY after commit, and the relay's own session: LISTEN, and the lock by which relays count each other.

A NOTIFY names the tenant and nothing else, and is only a hint: it may be lost, and anybody may send one.  It is sent
outside the mutation's transaction, since a NOTIFY inside makes every COMMIT take one global lock in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from pemba.errors import BackendError
from pemba.model import TenantId
from pemba.storage.database import API_ROLE, CONNECT_SECONDS, RELAY_ROLE, Database
from pemba.storage.errors import CONNECTION_FAILURES, translated
from pemba.telemetry import Event

CHANNEL = "pemba_outbox"
MAX_PENDING = 10_000

_LOCK = 0x72656C6179  # "relay"

_SESSION_SETTINGS = {
    "role": RELAY_ROLE,
    "application_name": "pemba relay",
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
                log.debug(Event.NOTIFY_LOST, error=error.message)


# The lock's key shows as its upper and its lower 32 bits.
_REPLICAS = f"""
SELECT count(*), count(*) FILTER (WHERE pid < pg_backend_pid()) AS rank FROM pg_locks
WHERE locktype = 'advisory' AND classid = {_LOCK >> 32} AND objid = {_LOCK & 0xFFFFFFFF} AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The relays that are connected now, this one among them: how many, and how many of them come before it."""

    count: int
    rank: int


class RelaySession:
    """One connection for the life of a relay: it listens, and by its shared lock the relays know of each other."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._joined = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, silent_seconds: float) -> AsyncIterator[RelaySession]:
        """Raises Unavailable.  PostgreSQL lets go of the lock when the connection ends, however it ends.

        It ends a session that asked nothing for `silent_seconds`, whether the connection looks alive or not.
        """
        silent = {"idle_session_timeout": str(int(silent_seconds * 1000))}
        with translated():
            connection = await asyncpg.connect(
                url,
                timeout=CONNECT_SECONDS,
                command_timeout=5,
                server_settings={**_SESSION_SETTINGS, **silent},
            )
        try:
            yield cls(connection)
        finally:
            with suppress(*CONNECTION_FAILURES):
                await connection.close(timeout=2)

    async def listen(self, heard: Callable[[str], None]) -> None:
        """Call `heard` with the payload of every NOTIFY from now on."""
        with translated():
            await self._connection.add_listener(CHANNEL, lambda _c, _p, _ch, payload: heard(str(payload)))

    async def replicas(self) -> Replicas | None:
        """How the shards are to be divided; None while a relay of a build before leases delivers all of them alone.

        Raises Unavailable, also where the session has ended: connect anew then.
        """
        with translated():
            if not self._joined:
                self._joined = await self._connection.fetchval("SELECT pg_try_advisory_lock_shared($1)", _LOCK)
            record = await self._connection.fetchrow(_REPLICAS) if self._joined else None
        return None if record is None else Replicas(record["count"], record["rank"])

    async def has_others(self) -> bool:
        """Whether any other relay is counted.  Raises Unavailable."""
        with translated():
            record = await self._connection.fetchrow(_REPLICAS)
        return record is not None and record["count"] > self._joined

    async def leave(self) -> None:
        """Be counted no longer, until `replicas` is asked for again.  Raises Unavailable."""
        if self._joined:
            with translated():
                await self._connection.execute("SELECT pg_advisory_unlock_shared($1)", _LOCK)
            self._joined = False
