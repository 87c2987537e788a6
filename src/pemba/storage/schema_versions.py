"""The versions of the SpiceDB schema that were applied, and the lock that lets one apply run at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from pemba.errors import PreconditionFailed, Reason
from pemba.storage.database import CONNECT_SECONDS
from pemba.storage.errors import translated

_LOCK = 0x736368656D61  # "schema"


@dataclass(frozen=True, slots=True)
class AppliedSchema:
    digest: str
    text: str
    number: int
    apply_time: datetime


class SchemaVersions:
    """The ledger of schema applies, on a connection of its own: each step is committed before the next begins.

    `number` is a seqlock: odd from before a write of the schema until its outcome is recorded.
    """

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[SchemaVersions]:
        """On a new connection as the login of `url`.  Raises Unavailable."""
        with translated():
            connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, command_timeout=30)
            try:
                yield cls(connection)
            finally:
                await connection.close(timeout=5)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Hold the apply lock; PostgreSQL lets go of it when the connection ends, however it ends."""
        if not await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise PreconditionFailed(Reason.CONCURRENT_UPDATE, "another schema apply is under way; wait for it to end")
        try:
            yield
        finally:
            await self._connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)

    async def begin(self, digest: str, text: str) -> int:
        """Commit the version as pending and make the number odd; an apply that died before is marked failed."""
        async with self._connection.transaction():
            await self._connection.execute(
                "UPDATE schema_version SET state = 'failed', why = 'interrupted', finish_time = now()"
                " WHERE state = 'pending'"
            )
            # The next odd number: an interrupted apply left it odd, and every attempt has its own.
            number = await self._connection.fetchval(
                "UPDATE installation SET schema_number = schema_number + 1 + schema_number % 2 RETURNING schema_number"
            )
            await self._connection.execute(
                "INSERT INTO schema_version (number, digest, text) VALUES ($1, $2, $3)", number, digest, text
            )
        return int(number)

    async def finish(self, number: int, zedtoken: str) -> None:
        """The schema is in force: mark the version applied and make the number even."""
        async with self._connection.transaction():
            await self._connection.execute(
                "UPDATE schema_version SET state = 'applied', zedtoken = $2, finish_time = now() WHERE number = $1",
                number,
                zedtoken,
            )
            await self._connection.execute("UPDATE installation SET schema_number = $1", number + 1)

    async def abandon(self, number: int, why: str) -> None:
        """SpiceDB refused it: mark the version failed and make the number even."""
        async with self._connection.transaction():
            await self._connection.execute(
                "UPDATE schema_version SET state = 'failed', why = $2, finish_time = now() WHERE number = $1",
                number,
                why,
            )
            await self._connection.execute("UPDATE installation SET schema_number = $1", number + 1)

    async def is_settled(self) -> bool:
        """Whether the number is even: no apply is under way, and none died or failed without a known outcome."""
        return bool(await self._connection.fetchval("SELECT schema_number % 2 = 0 FROM installation"))

    async def applied(self) -> AppliedSchema | None:
        """The last version that was applied."""
        record = await self._connection.fetchrow(
            "SELECT digest, text, number, finish_time FROM schema_version WHERE state = 'applied'"
            " ORDER BY number DESC LIMIT 1"
        )
        if record is None:
            return None
        return AppliedSchema(record["digest"], record["text"], record["number"], record["finish_time"])
