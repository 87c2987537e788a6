"""Batches: pure functions of what was read."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pemba.model import Effect, Operation, Seq, TenantId, Tuple, TupleOperation
from pemba.storage.outbox import OutboxRow
from pemba.storage.parked import Refusal


@dataclass(frozen=True, slots=True)
class Batch:
    """The next rows of one tenant as one change: goes whole or not at all."""

    tenant_id: TenantId
    last_seq: Seq
    operations: tuple[TupleOperation, ...]
    rows: tuple[OutboxRow, ...]
    has_parked: bool = False
    """Whether any operation of the tenant's is parked, of these rows or of earlier ones."""
    refusals: tuple[Refusal, ...] = ()
    """What is left out of these rows."""

    def rows_of(self, operations: Iterable[TupleOperation]) -> dict[TupleOperation, Seq]:
        """Of each the number of the row that has the last word on its tuple."""
        last = {o.tuple.plain: row.seq for row in self.rows for o in row.operations}
        return {operation: last[operation.tuple.plain] for operation in operations}

    def without(self, refusals: Collection[Refusal]) -> Batch:
        """The same batch less what is refused: of each, the very operation of the very row, or else it stands."""
        if not refusals:
            return self
        rows = self.rows_of(self.operations)
        found = {r.operation: r for r in refusals if rows.get(r.operation) == r.seq}
        operations = [o for o in self.operations if o not in found]
        in_place = [
            TupleOperation(Operation.DELETE, o.tuple.plain) for o, r in found.items() if r.effect is Effect.WITHDRAWN
        ]
        return replace(self, operations=(*operations, *in_place), refusals=(*self.refusals, *found.values()))

    @property
    def ended(self) -> list[Tuple]:
        """The tuples, without their expirations, that are what they should be once this is delivered."""
        parked = {r.operation.tuple.plain for r in self.refusals if r.effect is not Effect.NONE}
        return list({o.tuple.plain for row in self.rows for o in row.operations} - parked)

    @property
    def store_epoch(self) -> uuid.UUID | None:
        """The newest life of the store in which the tenant stands with this batch; None where none of its rows says."""
        return next((row.store_epoch for row in reversed(self.rows) if row.store_epoch is not None), None)


def batch(tenant_id: TenantId, rows: Sequence[OutboxRow], *, has_parked: bool = False) -> Batch:
    """Rows of one tenant, contiguous and within the bounds, as one batch: the last operation on a tuple wins.

    SpiceDB refuses two operations on one tuple in a write, so the earlier ones go.
    """
    last: dict[object, TupleOperation] = {}
    for row in rows:
        for operation in row.operations:
            last[operation.tuple.plain] = operation
    return Batch(tenant_id, rows[-1].seq, tuple(last.values()), tuple(rows), has_parked)


def first_missing(delivered_seq: Seq, rows: Sequence[OutboxRow]) -> Seq | None:
    """The first number after `delivered_seq` that should be among the rows and is not; None where all is well.

    No row at all is a gap as well: it is asked of a tenant that has something due.
    """
    for expected, row in enumerate(rows, start=delivered_seq + 1):
        if row.seq != expected:
            return Seq(expected)
    return None if rows else Seq(delivered_seq + 1)
