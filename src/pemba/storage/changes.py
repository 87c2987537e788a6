"""A tenant's changes in the order of its stream: the audit has a row for every number, as long as it is kept."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from asyncpg import Record

from pemba.model import Seq, TupleOperation
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import from_json
from pemba.storage.statement import Statement

MAX_FOUND = 50
MAX_LOOKED = 1000
MAX_RECORDS_BYTES = 256 * 1024
"""Of one row; larger ones are left out of it."""

# A change of several rows is there once its last is: what is not is at the end.
_FOUND = Statement(
    f"""
    SELECT seq, part, parts, create_time, acting_user, method, ops, bytes > {MAX_RECORDS_BYTES} AS records_left_out,
        CASE WHEN bytes <= {MAX_RECORDS_BYTES} THEN before END AS before,
        CASE WHEN bytes <= {MAX_RECORDS_BYTES} THEN after END AS after
    FROM audit CROSS JOIN LATERAL (
        SELECT coalesce(octet_length(CAST(before AS text)), 0) + coalesce(octet_length(CAST(after AS text)), 0) AS bytes
    ) AS records
    WHERE tenant_id = :tenant_id AND seq > CAST(:after AS bigint) AND seq <= CAST(:to AS bigint)
        AND seq - part + parts - 1 <= CAST(:up_to AS bigint)
        AND (CAST(:about AS text) IN ('', object) OR :about = ANY (about))
    ORDER BY seq LIMIT :limit
    """
)
_KEPT = Statement(
    """
    SELECT count(*) AS kept, count(*) FILTER (WHERE seq - part + parts - 1 <= CAST(:up_to AS bigint)) AS whole
    FROM audit WHERE tenant_id = :tenant_id AND seq > CAST(:after AS bigint) AND seq <= CAST(:to AS bigint)
    """
)


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One row of a change; `part` of `parts` counts from 0, and the first has the records."""

    seq: Seq
    part: int
    parts: int
    create_time: datetime.datetime
    acting_user: str
    method: str
    before: Any
    after: Any
    records_left_out: bool
    operations: tuple[TupleOperation, ...]

    @property
    def last_seq(self) -> Seq:
        """Of the change's last row: with that all of it is in force."""
        return Seq(self.seq - self.part + self.parts - 1)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Of the rows after `after` and up to `up_to`, those that are about something."""

    rows: tuple[ChangeRow, ...]
    after: Seq
    up_to: Seq


async def stretch(tx: TenantTransaction, after: Seq, up_to: Seq, about: str) -> Stretch | None:
    """The next rows of whole changes that are about this (empty: any), in order; none is beyond `up_to`.

    None where a row after `after` is not kept any more.
    """
    to = min(up_to, after + MAX_LOOKED)
    bounds = {"tenant_id": tx.tenant_id, "after": after, "up_to": up_to}
    found = [_row(r) for r in await _FOUND.rows(tx, to=to, about=about, limit=MAX_FOUND, **bounds)]
    if len(found) == MAX_FOUND:
        to = found[-1].seq
    # After the rows: what was not yet deleted now was there then.
    counted = await _KEPT.one(tx, to=to, **bounds)
    if counted["kept"] < to - after:
        return None
    return Stretch(tuple(found), after, Seq(after + counted["whole"]))


def _row(record: Record) -> ChangeRow:
    return ChangeRow(
        Seq(record["seq"]),
        record["part"],
        record["parts"],
        record["create_time"],
        record["acting_user"] or "",
        record["method"],
        record["before"],
        record["after"],
        record["records_left_out"],
        from_json(record["ops"]),
    )
