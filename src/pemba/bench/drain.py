"""How fast the relay empties a full outbox, beside raw writes of as many tuples to the same SpiceDB."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import count

from pemba.bench.figures import Figures, Goal, Row, ratio
from pemba.bench.loading import Loaded, undelivered
from pemba.bench.stage import Bench
from pemba.model import Caller, ObjectRef, Operation, Seq, SubjectRef, TenantId, TenantScope, Tuple, TupleOperation
from pemba.projection import object_in_spicedb
from pemba.spicedb.client import SpiceDB
from pemba.storage import journal, outbox
from pemba.storage.delivery import MAX_REQUEST_OPERATIONS
from pemba.storage.journal import AuditEntry

STREAMS = 16
"""As many as the relay has lanes."""

_MAX_OPERATIONS_A_TENANT = 10_000
_SECONDS = 120.0
_POLL_SECONDS = 0.05
"""Each look costs the servers that are measured some milliseconds."""
_CALLER = Caller("bench", frozenset(), None, None, "bench", "")


async def drain(bench: Bench) -> Row:
    """The relay's clock starts at the first position that it records: its own start does not count."""
    figures: dict[str, list[Figures]] = {"pemba": [], "spicedb, raw writes": []}
    pemba, raw = figures.values()
    total = 0
    for number in range(bench.rounds):
        queued = operations(bench.loaded, number, bench.drain_tuples)
        total = sum(map(len, queued.values()))
        for side in (pemba, raw) if number % 2 == 0 else (raw, pemba):
            side.append(await (_drain(bench, queued) if side is pemba else _write(bench, number, queued)))
    what = f"{total} queued tuples of {len(bench.loaded.tenants)} tenants delivered; raw: writes of"
    return Row(
        work="drain",
        what=f"{what} {MAX_REQUEST_OPERATIONS} in {STREAMS} streams (tuples a second)",
        sides=figures,
        goals=[Goal("rate / raw", ratio(pemba, raw), 0.8, at_least=True)],
        notes=["latencies: of a write (raw); the relay's are not taken"],
    )


def operations(loaded: Loaded, number: int, tuples: int) -> dict[TenantId, list[TupleOperation]]:
    """As many for each tenant: viewers of its workspaces, other users in every round."""
    each = min(_MAX_OPERATIONS_A_TENANT, -(-tuples // len(loaded.tenants)))
    return {
        tenant: list(_viewers(tenant, workspaces[1:], number, each))
        for tenant, workspaces in zip(loaded.tenants, loaded.workspaces, strict=True)
    }


def _viewers(tenant: TenantId, workspaces: Sequence[str], number: int, many: int) -> Iterator[TupleOperation]:
    for n in range(many):
        place = object_in_spicedb(tenant, ObjectRef("workspace", workspaces[n % len(workspaces)]))
        viewer = SubjectRef("user", f"queued-{number}-{n // len(workspaces)}")
        yield TupleOperation(Operation.TOUCH, Tuple(place, "viewer", viewer))


async def _drain(bench: Bench, queued: dict[TenantId, list[TupleOperation]]) -> Figures:
    await asyncio.to_thread(bench.relay.stop)
    sizes: list[int] = []
    for tenant, each in queued.items():
        sizes = await _queue(bench, tenant, each)  # the same for all
    total = sum(sizes) * len(queued)
    start = time.perf_counter()
    starting = asyncio.create_task(asyncio.to_thread(bench.relay.start))
    first: tuple[float, int] | None = None
    async with asyncio.timeout(_SECONDS):
        while left := sum(sum(sizes[-rows:]) for rows in (await undelivered(bench.database)).values()):
            if first is None and left < total:
                first = time.perf_counter(), left
            await asyncio.sleep(_POLL_SECONDS)
    end = time.perf_counter()
    await starting
    since, left_then = first or (start, total)
    if left_then < total / 2:  # so few that they were gone at once: with the relay's own start, then
        since, left_then = start, total
    return Figures(count=total, rate=left_then / (end - since), p50=0, p95=0, p99=0)


async def _queue(bench: Bench, tenant: TenantId, each: list[TupleOperation]) -> list[int]:
    """Into the outbox as one change, with no record beside it: the relay looks at rows alone.  Sizes of the rows."""
    rows = outbox.split(each)
    async with bench.database.begin(TenantScope(tenant)) as tx:
        last = await outbox.advance(tx, len(rows))
        assert last is not None
        entry = AuditEntry(_CALLER, "bench", f"tenant:{tenant}")
        await journal.append(tx, tenant, Seq(last - len(rows) + 1), rows, entry)
    return [len(row) for row in rows]


async def _write(bench: Bench, number: int, queued: dict[TenantId, list[TupleOperation]]) -> Figures:
    """The same tuples under other object ids, as big writes as there can be."""
    every = [_elsewhere(operation, number) for each in queued.values() for operation in each]
    batches = iter([every[at : at + MAX_REQUEST_OPERATIONS] for at in range(0, len(every), MAX_REQUEST_OPERATIONS)])
    spicedb = SpiceDB.connect(bench.ready.spicedb_endpoint, bench.ready.spicedb_key)
    written, times = count(1), []

    async def stream() -> None:
        for batch in batches:
            start = time.perf_counter()
            await spicedb.write(batch, metadata={"request_id": f"bench-{next(written)}"}, timeout=_SECONDS)
            times.append((time.perf_counter() - start) * 1000)

    start = time.perf_counter()
    try:
        await asyncio.gather(*(stream() for _ in range(STREAMS)))
    finally:
        await spicedb.close()
    seconds = time.perf_counter() - start
    times.sort()
    at = {share: times[min(len(times) - 1, int(share * len(times)))] for share in (0.5, 0.95, 0.99)}
    return Figures(count=len(every), rate=len(every) / seconds, p50=at[0.5], p95=at[0.95], p99=at[0.99])


def _elsewhere(operation: TupleOperation, number: int) -> TupleOperation:
    stored = operation.tuple
    place = ObjectRef(stored.resource.type, f"raw-{number}-{stored.resource.id}")
    return TupleOperation(operation.operation, Tuple(place, stored.relation, stored.subject))
