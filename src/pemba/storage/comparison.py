"""What SpiceDB holds, set aside in a temporary table so that the records can be struck off against it.

A million tuples fit in no process's memory, and no order is sure to be that of both sides: SpiceDB sorts by the
collation of its own database.  So one side lies in PostgreSQL while the other passes by.  Every statement is short and
is a transaction of its own: nothing is locked that anybody else wants, and nothing holds back VACUUM.  The table goes
with the session, and with it the lock that lets one comparison run at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from pemba.errors import Reason, Unavailable
from pemba.model import TenantId
from pemba.storage.database import CONNECT_SECONDS, SYSTEM_ROLE
from pemba.storage.errors import CONNECTION_FAILURES, translated

_LOCK = 0x636F6D70617265  # "compare"
_COMMAND_SECONDS = 35.0
_SETTINGS = {
    "role": SYSTEM_ROLE,
    "application_name": "pemba reconcile",
    "statement_timeout": "30000",
    # A session whose process is gone must not keep the lock for hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}

# A tuple's text is below 2,500 bytes by SpiceDB's bounds on ids, and an index takes up to 2,700.
_CREATE = 'CREATE TEMPORARY TABLE stored (tuple text COLLATE "C" PRIMARY KEY)'
_ADD = "INSERT INTO pg_temp.stored SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
# Joined: as `= ANY ($1)` every row may be held against every text, one after the other.
_STRIKE = """
    DELETE FROM pg_temp.stored USING unnest($1::text[]) AS given (tuple) WHERE stored.tuple = given.tuple
    RETURNING stored.tuple
"""
_LEFT = "SELECT tuple FROM pg_temp.stored WHERE tuple > $1 ORDER BY tuple LIMIT $2"
_LEFT_BETWEEN = "SELECT tuple FROM pg_temp.stored WHERE tuple > $1 AND tuple < $2 ORDER BY tuple LIMIT $3"
_FORGET = "DELETE FROM pg_temp.stored WHERE tuple > $1 AND tuple < $2"


class Comparison:
    """Tuples by their text; all of them distinct."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Comparison]:
        """An empty one.  Raises Unavailable (OVERLOADED) while another is under way, whoever runs it."""
        with translated():
            connection = await asyncpg.connect(
                url, timeout=CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS, server_settings=_SETTINGS
            )
            try:
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
                    raise Unavailable(
                        Reason.OVERLOADED, "another reconciliation is under way; try again later", retry_seconds=60
                    )
                await connection.execute(_CREATE)
                yield cls(connection)
            finally:
                with suppress(*CONNECTION_FAILURES):
                    await connection.close(timeout=2)

    async def add(self, tuples: Sequence[str]) -> None:
        """Set these aside: a few thousand at a time."""
        await self._connection.execute(_ADD, tuples)

    async def strike(self, tuples: Sequence[str]) -> set[str]:
        """Take these out; those of them that were there."""
        return {record["tuple"] for record in await self._connection.fetch(_STRIKE, tuples)}

    async def left(self, after: str, limit: int) -> list[str]:
        """At most `limit` of those that are left, in the order of their bytes: one tenant's stand together."""
        return [record["tuple"] for record in await self._connection.fetch(_LEFT, after, limit)]

    async def left_on(self, type_: str, tenant_id: TenantId, after: str, limit: int) -> list[str]:
        """At most `limit` of those that are left on the tenant's objects of that type, after one of them."""
        first, last = _between(type_, tenant_id)
        return [r["tuple"] for r in await self._connection.fetch(_LEFT_BETWEEN, max(after, first), last, limit)]

    async def forget(self, type_: str, tenant_id: TenantId) -> None:
        """Take out whatever is left on the tenant's objects of that type."""
        await self._connection.execute(_FORGET, *_between(type_, tenant_id))


def _between(type_: str, tenant_id: TenantId) -> tuple[str, str]:
    """All texts of tuples on the tenant's objects of that type lie between these two."""
    prefix = f"{type_}:{tenant_id}"
    return f"{prefix}/", prefix + chr(ord("/") + 1)
