"""Finding and repair of a whole store: tenants that never were, ids of nobody, applications' own, memory, schedule."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from pemba import app
from pemba.config import RelaySettings
from pemba.errors import Unavailable
from pemba.model import Operation, TenantId, Tuple, TupleOperation
from pemba.relay.principal import PRINCIPAL
from pemba.relay.reconcile_schedule import ReconcileSchedule
from pemba.service.drift import Kind
from pemba.service.reconciliation import Options, Reconciler, Summary
from pemba.spicedb import schema
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.stored import StoredTuples
from pemba.storage.comparison import Comparison
from pemba.storage.database import Database
from tests.integration.conftest import Parts
from tests.integration.relay.test_reconcile import a_company, behind_its_back, everything, kinds, on, told
from tests.truth import as_owner, eventually, is_delivered, require_truth, sql

TENANT = "ten_01h455vb4pex5vsknk084sn02q"
"""One that PostgreSQL does not know."""
DAY = 24 * 3600.0


@pytest.fixture
async def own_store(own_spicedb) -> AsyncIterator[SpiceDB]:
    """A store that holds nothing of other tests."""
    server = own_spicedb()
    store = SpiceDB.connect(server.endpoint, server.key)
    store.server = server  # type: ignore[attr-defined]
    yield store
    await store.close()


@pytest.fixture
def reconciler(database: Database, database_url: str, own_store: SpiceDB, parts: Parts) -> Reconciler:
    return Reconciler(database, database_url, StoredTuples(own_store), parts.mutations.wakeup)


@asynccontextmanager
async def relaying(url: str, store: SpiceDB, **settings: object) -> AsyncIterator[None]:
    """A `pemba relay`, in this process."""
    server = store.server  # type: ignore[attr-defined]
    stopping = asyncio.Event()
    reached = {"database_url": url, "spicedb_endpoint": server.endpoint, "spicedb_key": server.key}
    running = asyncio.create_task(app.relay(RelaySettings(**reached, **settings), stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)


async def test_tuples_of_a_tenant_that_never_was_go_and_what_no_tenant_can_have_is_told_and_left(
    parts: Parts, reconciler: Reconciler, own_store: SpiceDB, database_url: str
) -> None:
    unknown = [f"workspace:{TENANT}/ws_1#admin@user:eve", f"tenant:{TENANT}/{TENANT}#admin@user:eve"]
    foreign = ["workspace:nobodys#admin@user:eve", "tenant:ten_1/ten_1#admin@user:eve"]
    theirs = f"document:{TENANT}/d1#viewer@user:eve"
    await schema.write(own_store, schema.schema_text() + "\ndefinition document {\n\trelation viewer: user\n}\n")
    async with relaying(database_url, own_store):
        made = await a_company(parts)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
        await behind_its_back(own_store, *(f"+{t}" for t in (*unknown, *foreign, theirs)))
        findings, summary = await told(reconciler, Options())
        expected = kinds(too_much=unknown) | {(Kind.FOREIGN, t) for t in foreign}
        assert {(f.drift.kind, str(f.drift.tuple)) for f in findings} == expected
        assert (summary.too_much, summary.foreign, summary.repaired) == (2, 2, 0)
        assert {f.tenant_slug for f in findings} == {""}

        _, summary = await told(reconciler, Options(apply=True, wait=True))
        assert (summary.repaired, set(summary.positions)) == (2, {TenantId(TENANT)})
        findings, summary = await told(reconciler, Options())
        assert {(f.drift.kind, str(f.drift.tuple)) for f in findings} == {(Kind.FOREIGN, t) for t in foreign}
        assert theirs in [str(t) async for t in StoredTuples(own_store).scan("document", "")]
        await require_truth(database_url, own_store, made.tenant.id)


async def test_a_store_that_lost_everything_is_filled_again(
    parts: Parts, reconciler: Reconciler, own_store: SpiceDB, database_url: str
) -> None:
    companies = [await a_company(parts) for _ in range(3)]
    for made in companies:  # as if delivered to a store that is gone
        await as_owner(
            database_url,
            "tenant_delivery",
            "INSERT INTO tenant_delivery (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch)"
            " SELECT tenant_id, shard, head_seq, 1, 2, store_epoch FROM tenant_head WHERE tenant_id = $1",
            made.tenant.id,
        )
    async with relaying(database_url, own_store):
        _, summary = await told(reconciler, Options(apply=True, wait=True))
        assert (summary.stored, summary.too_much) == (0, 0)
        assert summary.missing == summary.projected == summary.repaired
        assert set(summary.positions) == {made.tenant.id for made in companies}
        for made in companies:
            await require_truth(database_url, own_store, made.tenant.id)


async def test_a_schedule_compares_when_it_is_due_tells_the_metrics_and_repairs_only_where_it_may(
    parts: Parts, database: Database, reconciler: Reconciler, own_store: SpiceDB, database_url: str
) -> None:
    async with relaying(database_url, own_store, relay_reconcile_hours=0):
        made = await a_company(parts)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
    lost, ghost = on(made.backend, "viewer", "user:carol"), on(made.eng, "admin", "user:eve")
    await behind_its_back(own_store, f"-{lost}", f"+{ghost}")
    before = await everything(database_url)
    schedule = ReconcileSchedule(database, reconciler, DAY, apply=False)
    assert await schedule.run_once() is None  # installed just now

    await _pass(database_url, DAY)
    summary = await schedule.run_once()
    assert summary is not None
    assert (summary.missing, summary.too_much, summary.repaired) == (1, 1, 0)
    assert await everything(database_url) == before
    assert _metrics() == {"missing": 1, "too_much": 1, "foreign": 0}
    [row] = await sql(database_url, "SELECT extract(epoch FROM reconcile_time) AS at FROM installation")
    assert REGISTRY.get_sample_value("pemba_reconcile_timestamp_seconds") == pytest.approx(float(row["at"]))
    assert await schedule.run_once() is None

    await _pass(database_url, DAY)
    summary = await ReconcileSchedule(database, reconciler, DAY, apply=True).run_once()
    assert summary is not None
    assert summary.repaired == 2
    [audit] = await sql(database_url, "SELECT DISTINCT principal, method FROM audit WHERE method = 'Reconcile'")
    assert tuple(audit) == (PRINCIPAL, "Reconcile")
    await _pass(database_url, DAY)
    async with Comparison.connect(database_url):  # an operator's is under way
        with pytest.raises(Unavailable):
            await schedule.run_once()
    async with relaying(database_url, own_store, relay_reconcile_hours=0):
        await require_truth(database_url, own_store, made.tenant.id)


async def test_a_relay_compares_by_itself_when_it_is_due(parts: Parts, own_store: SpiceDB, database_url: str) -> None:
    async with relaying(database_url, own_store, relay_reconcile_hours=0):
        made = await a_company(parts)
        await eventually(lambda: is_delivered(database_url, made.tenant.id))
    await behind_its_back(own_store, "+" + on(made.eng, "admin", "user:eve"))
    await _pass(database_url, DAY)
    async with relaying(database_url, own_store, relay_reconcile_hours=24, relay_reconcile_apply=True):
        await eventually(lambda: _reconciled_again(database_url), 20)
        await require_truth(database_url, own_store, made.tenant.id)


@pytest.mark.parametrize("many", [20_000, pytest.param(300_000, marks=(pytest.mark.long, pytest.mark.timeout(1800)))])
async def test_memory_does_not_grow_with_the_tuples(
    parts: Parts, reconciler: Reconciler, own_store: SpiceDB, database_url: str, many: int
) -> None:
    """Of all in one tenant a thousand are missing: it takes far less than to hold one side would."""
    tenant, root = await parts.tenant()
    await _members(database_url, tenant.id, root.id, many)
    tracemalloc.start()
    try:
        expected = [Tuple.parse(on(root, "viewer", f"user:member-{n}")) for n in range(many)]
        to_hold_one_side, _ = tracemalloc.get_traced_memory()
        for start in range(1000, many, 1000):
            part = [TupleOperation(Operation.TOUCH, t) for t in expected[start : start + 1000]]
            await own_store.write(part, metadata={}, timeout=60)
        del expected, part
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        summary: object = None
        async for event in reconciler.run(parts.system, Options()):
            summary = event
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(summary, Summary)
    assert (summary.projected, summary.stored, summary.missing) == (many + 2, many - 1000, 1000)
    assert summary.undelivered == 2  # of the tenant's own making
    assert peak - before < 8_000_000 < to_hold_one_side


def _metrics() -> dict[str, float | None]:
    return {kind: REGISTRY.get_sample_value("pemba_drift_tuples", {"kind": kind}) for kind in map(str, Kind)}


async def _pass(url: str, seconds: float) -> None:
    """Let the last comparison (or the installation) be so long ago."""
    await as_owner(
        url,
        "installation",
        "UPDATE installation SET create_time = now() - make_interval(secs => $1),"
        " reconcile_time = CASE WHEN reconcile_time IS NULL THEN NULL ELSE now() - make_interval(secs => $1) END",
        seconds,
    )


async def _reconciled_again(url: str) -> bool:
    [row] = await sql(
        url, "SELECT coalesce(now() - reconcile_time < make_interval(hours => 1), false) AS so FROM installation"
    )
    return bool(row["so"])


async def _members(url: str, tenant_id: str, workspace_id: str, many: int) -> None:
    numbers = f"generate_series(0, {many - 1}) AS n"
    await as_owner(url, "users", f"INSERT INTO users (id) SELECT 'member-' || n FROM {numbers}")
    await as_owner(
        url,
        "memberships",
        "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
        f" SELECT $1, $2, 'user', 'member-' || n, 'viewer', 1 FROM {numbers}",
        tenant_id,
        workspace_id,
    )
