"""What there is once in a database: its epochs and the number of the SpiceDB schema in force."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pemba.storage.database import Transaction
from pemba.storage.statement import Statement

_READ = Statement("SELECT database_epoch, store_epoch, schema_number FROM installation")


@dataclass(frozen=True, slots=True)
class Installation:
    """`schema_number` is odd while a schema apply is under way."""

    database_epoch: uuid.UUID
    store_epoch: uuid.UUID
    schema_number: int


async def read(tx: Transaction) -> Installation:
    record = await _READ.one(tx)
    return Installation(record["database_epoch"], record["store_epoch"], record["schema_number"])
