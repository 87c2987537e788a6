"""What there is once in a database: its epochs and the number of the SpiceDB schema in force."""

from __future__ import annotations

import datetime
import uuid
from dataclasses import dataclass

from pemba.storage.database import SystemTransaction, Transaction
from pemba.storage.statement import Statement

_READ = Statement("SELECT database_epoch, store_epoch, schema_number FROM installation")
_RECONCILED = Statement("UPDATE installation SET reconcile_time = now() RETURNING reconcile_time")
_RECONCILE_TIME = Statement(
    "SELECT reconcile_time, extract(epoch FROM now() - coalesce(reconcile_time, create_time)) AS age_seconds"
    " FROM installation"
)


@dataclass(frozen=True, slots=True)
class Installation:
    """`schema_number` is odd while a schema apply is under way."""

    database_epoch: uuid.UUID
    store_epoch: uuid.UUID
    schema_number: int


async def read(tx: Transaction) -> Installation:
    record = await _READ.one(tx)
    return Installation(record["database_epoch"], record["store_epoch"], record["schema_number"])


async def mark_reconciled(tx: SystemTransaction) -> datetime.datetime:
    """The whole store was compared with the records just now."""
    found: datetime.datetime = (await _RECONCILED.one(tx))["reconcile_time"]
    return found


async def reconciled(tx: SystemTransaction) -> tuple[datetime.datetime | None, float]:
    """When the whole store was last compared, and how long ago that is (or the installation), in seconds."""
    record = await _RECONCILE_TIME.one(tx)
    return record["reconcile_time"], float(record["age_seconds"])
