"""Statements: SQL with named parameters, compiled once by SQLAlchemy Core for the driver and sent as it stands.

The driver prepares each on its first use of a connection.  They are written as text: what is read here is what
PostgreSQL gets, and a test prepares every one of them against a migrated database.
"""

from __future__ import annotations

from typing import ClassVar

import sqlalchemy as sa
from asyncpg import Record
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from pemba.storage.database import Transaction

_DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves its dialects' constructors unannotated


class Statement:
    """One SQL statement with `:named` parameters; call it with a transaction and exactly those names."""

    every: ClassVar[list[Statement]] = []

    def __init__(self, sql: str) -> None:
        compiled = sa.text(sql).compile(dialect=_DIALECT)
        self.sql = compiled.string
        self._names = tuple(compiled.positiontup or ())
        Statement.every.append(self)

    def arguments(self, parameters: dict[str, object]) -> list[object]:
        """The parameters in the driver's order.  A missing or a superfluous one is a KeyError."""
        if len(parameters) != len(set(self._names)):
            raise KeyError(f"takes {sorted(set(self._names))}, got {sorted(parameters)}")
        return [parameters[name] for name in self._names]

    async def rows(self, tx: Transaction, **parameters: object) -> list[Record]:
        """Every row."""
        return await tx.connection.fetch(self.sql, *self.arguments(parameters))

    async def row(self, tx: Transaction, **parameters: object) -> Record | None:
        """The first row, or None."""
        return await tx.connection.fetchrow(self.sql, *self.arguments(parameters))

    async def one(self, tx: Transaction, **parameters: object) -> Record:
        """The one row that this statement always gives."""
        record = await self.row(tx, **parameters)
        assert record is not None
        return record

    async def run(self, tx: Transaction, **parameters: object) -> int:
        """Execute; the number of rows changed."""
        tag = await tx.connection.execute(self.sql, *self.arguments(parameters))
        return int(tag.rpartition(" ")[2])
