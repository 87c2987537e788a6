"""Replays the record beside what SpiceDB's Watch told: a pure function of both.

Demanded is: at no revision did a tuple exist that the record had revoked and delivered.  A tuple may exist at a
revision if it does so after some number of its tenant's sequence: none before what was recorded as delivered by then,
and none that was only begun after the revision had been seen.  That something is missing is not looked at here: it
grants nothing to nobody.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pemba import projection
from pemba.model import Operation, TenantId, Tuple, TupleOperation
from tests.crash.faults.revisions import Revision


@dataclass(frozen=True)
class Row:
    """One number of a tenant's sequence, as audit has it; `begun_at` is when its transaction began (Unix seconds)."""

    tenant_id: TenantId
    seq: int
    operations: tuple[TupleOperation, ...]
    begun_at: float


@dataclass(frozen=True)
class Delivery:
    """Recorded in `tenant_delivery`, with the revision of the write behind it."""

    tenant_id: TenantId
    seq: int
    revision: Revision


@dataclass(frozen=True)
class Write:
    """What one revision of SpiceDB changed; `seen_at` (Unix seconds) is when Watch told us, so it was before."""

    revision: Revision
    touched: frozenset[Tuple]
    deleted: frozenset[Tuple]
    seen_at: float


@dataclass(frozen=True)
class Resurrection:
    """A tuple that was there although the record had revoked it by `delivered_seq`, which was delivered."""

    tuple: Tuple
    delivered_seq: int
    txid: int


class Timeline:
    """When each tuple is there by the record: after which numbers."""

    def __init__(self, rows: Iterable[Row]) -> None:
        ordered = sorted(rows, key=lambda row: row.seq)
        self.numbers = [row.seq for row in ordered]
        assert self.numbers == list(range(1, len(ordered) + 1)), "the record has a gap"
        self._begun = _suffix_minima([row.begun_at for row in ordered])
        self._spans: dict[Tuple, list[tuple[int, float]]] = defaultdict(list)
        """From its TOUCH (inclusive) to its DELETE (exclusive)."""
        for row in ordered:
            for operation in row.operations:
                self._apply(row.seq, operation)

    def head_at(self, time: float) -> int:
        """The highest number that can have been committed by then."""
        return bisect_right(self._begun, time)

    def is_there(self, found: Tuple, seq: int) -> bool:
        return self.is_there_between(found, seq, seq)

    def is_there_between(self, found: Tuple, low: int, high: int) -> bool:
        """After any of these numbers."""
        return any(begin <= high and end > low for begin, end in self._spans.get(found, ()))

    def tuples(self) -> Iterator[Tuple]:
        """Every one that ever was."""
        return iter(self._spans)

    def _apply(self, seq: int, operation: TupleOperation) -> None:
        spans = self._spans[operation.tuple]
        is_there = bool(spans) and spans[-1][1] == math.inf
        if operation.operation is Operation.TOUCH and not is_there:
            spans.append((seq, math.inf))
        elif operation.operation is Operation.DELETE and is_there:
            spans[-1] = (spans[-1][0], seq)


def resurrections(rows: Sequence[Row], deliveries: Sequence[Delivery], writes: Sequence[Write]) -> list[Resurrection]:
    """What was back; `writes` are all, in the order of Watch, since before the first tenant was made."""
    rows_of, delivered_of = _by_tenant(rows), _by_tenant(deliveries)
    found: list[Resurrection] = []
    for tenant_id, own in _writes_by_tenant(writes).items():
        timeline = Timeline(rows_of.get(tenant_id, []))
        found += _of_one_tenant(timeline, delivered_of.get(tenant_id, []), own)
    return found


def _of_one_tenant(
    timeline: Timeline, deliveries: Sequence[Delivery], writes: Sequence[Write]
) -> Iterator[Resurrection]:
    """A delivery counts from the first write on that comes after all that its revision sees."""
    counts_from: dict[int, int] = defaultdict(int)
    for delivery in deliveries:
        seen = [i for i, write in enumerate(writes) if delivery.revision.sees(write.revision.txid)]
        at = seen[-1] + 1 if seen else 0
        counts_from[at] = max(counts_from[at], delivery.seq)
    there: set[Tuple] = set()
    delivered = 0
    for i, write in enumerate([*writes, None]):
        to_check = write.touched if write is not None else frozenset()
        if counts_from.get(i, 0) > delivered:
            delivered = counts_from[i]
            to_check = there | to_check if write is None else (there - write.deleted) | write.touched
        if write is not None:
            there = there - write.deleted | write.touched
        head = timeline.head_at(write.seen_at) if write is not None else len(timeline.numbers)
        for each in sorted(to_check, key=str):
            if not timeline.is_there_between(each, delivered, head):
                yield Resurrection(each, delivered, write.revision.txid if write is not None else 0)


def _by_tenant(items: Iterable) -> dict[TenantId, list]:
    found: dict[TenantId, list] = defaultdict(list)
    for item in items:
        found[item.tenant_id].append(item)
    return found


def _writes_by_tenant(writes: Iterable[Write]) -> dict[TenantId, list[Write]]:
    """A write of several tenants is one of each."""
    found: dict[TenantId, list[Write]] = defaultdict(list)
    for write in writes:
        tenants = {projection.owner_of(each) for each in write.touched | write.deleted} - {None}
        for tenant_id in tenants:
            assert tenant_id is not None
            found[tenant_id].append(
                Write(
                    write.revision,
                    frozenset(t for t in write.touched if projection.owner_of(t) == tenant_id),
                    frozenset(t for t in write.deleted if projection.owner_of(t) == tenant_id),
                    write.seen_at,
                )
            )
    return found


def _suffix_minima(values: Sequence[float]) -> list[float]:
    """A transaction can begin before another and commit after it: the least of each and all later ones, ascending."""
    found = list(values)
    for i in range(len(found) - 2, -1, -1):
        found[i] = min(found[i], found[i + 1])
    return found
