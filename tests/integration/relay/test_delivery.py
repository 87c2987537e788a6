"""What a lane makes of the rows: one batch a tenant, several tenants a request, nobody waits for another."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pemba.model import Role, Tenant, Workspace
from pemba.relay.retention import BATCH, Retention
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from pemba.storage.outbox import shard_of
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, Seized
from tests.truth import as_owner, is_delivered, positions, require_truth, sql, stored

Made = tuple[Tenant, Workspace]


async def tenant_in(parts: Parts, shard: int) -> Made:
    """A new tenant that this shard delivers."""
    while True:
        made = await parts.tenant()
        if shard_of(made[0].id) == shard:
            return made


async def add_rows(url: str, tenant: Tenant, ops: Callable[[str], str], rows: int = 1) -> None:
    """Rows that no mutation made; `ops` is SQL for the operations of the row numbered `n`."""
    await sql(
        url,
        f"""
        WITH moved AS (UPDATE tenant_head SET head_seq = head_seq + $2 WHERE tenant_id = $1 RETURNING *)
        INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace)
        SELECT tenant_id, head_seq - $2 + n, shard, ops, jsonb_array_length(ops), length(ops::text), '{{}}'
        FROM moved, generate_series(1, $2) AS n, LATERAL (SELECT {ops("n")} AS ops) row
        """,
        tenant.id,
        rows,
    )


def touch(tuple_text: str) -> Callable[[str], str]:
    return lambda _: f"""jsonb_build_array(jsonb_build_object('op', 'touch', 'tuple', '{tuple_text}'))"""


def object_of(made: Made) -> str:
    return f"workspace:{made[0].id}/{made[1].id}"


async def test_tenants_of_a_shard_share_a_request(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    made = [await tenant_in(parts, 7) for _ in range(3)]
    async with relaying():
        for tenant, _ in made:
            await require_truth(database_url, store, tenant.id)
    rows = await sql(
        database_url,
        "SELECT DISTINCT zedtoken, stamp FROM tenant_delivery WHERE tenant_id = ANY ($1)",
        [tenant.id for tenant, _ in made],
    )
    assert len(rows) == 1


async def test_a_gap_holds_up_its_own_tenant_alone_and_is_never_skipped(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    holed, healthy = await tenant_in(parts, 3), await tenant_in(parts, 3)
    await parts.role(holed[1], "bob", Role.VIEWER)
    await parts.role(holed[1], "carol", Role.VIEWER)
    await as_owner(database_url, "outbox", "DELETE FROM outbox WHERE tenant_id = $1 AND seq = 2", holed[0].id)
    async with relaying():
        await require_truth(database_url, store, healthy[0].id, 5)
        assert (await positions(database_url, holed[0].id))[1] <= 1
        assert not {found.subject.id for found in await stored(store, holed[0].id)} & {"bob", "carol"}


async def test_the_one_that_waited_longest_comes_first_so_that_a_full_shard_starves_nobody(
    parts: Parts, seized: Seized, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemba.relay.lane.MAX_TENANTS", 1)
    lane = await seized(5)
    busy, quiet = sorted([await tenant_in(parts, 5), await tenant_in(parts, 5)], key=lambda made: made[0].id)
    for _ in range(2):
        await lane.run_once()
    await parts.role(quiet[1], "bob", Role.VIEWER)
    delivered = []
    for turn in range(3):
        await parts.role(busy[1], f"user-{turn}", Role.VIEWER)
        await lane.run_once()
        delivered.append(await is_delivered(database_url, quiet[0].id))
    assert delivered[1]


async def test_retention_deletes_what_is_delivered_and_old_and_nothing_else(
    parts: Parts, database: Database, store: SpiceDB, seized: Seized, database_url: str
) -> None:
    retention = Retention(database, keep_seconds=3600)
    tenant, root = await parts.tenant()
    lane = await seized(shard_of(tenant.id))
    await parts.role(root, "bob", Role.VIEWER, request_id="old")
    await lane.run_once()
    await parts.role(root, "carol", Role.VIEWER)
    await age(database_url, "outbox", "seq IN (1, 3)")
    assert (await retention.run_once()).outbox_rows == 1
    assert await seqs(database_url, tenant) == [2, 3], "young, and old but not delivered"
    await lane.run_once()
    assert (await retention.run_once()).outbox_rows == 1
    assert await seqs(database_url, tenant) == [2]
    await parts.role(root, "dave", Role.VIEWER, request_id="young")
    assert await lane.run_once() == 1
    await age(database_url, "idempotency", "request_id = 'old'")
    assert (await retention.run_once()).responses == 1
    rows = await sql(database_url, "SELECT request_id FROM idempotency")
    assert [row["request_id"] for row in rows] == ["young"]
    assert {found.subject.id for found in await stored(store, tenant.id)} >= {"bob", "carol", "dave"}


async def test_retention_goes_in_batches(parts: Parts, database: Database, database_url: str) -> None:
    tenant, _ = await parts.tenant()
    await add_rows(database_url, tenant, lambda _: "'[]'::jsonb", rows=BATCH + 10)
    await age(database_url, "outbox", "true")
    async with database.begin_relay() as tx:
        await tx.connection.execute(
            "INSERT INTO tenant_delivery (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch)"
            " SELECT $1, $2, $3, 1, 0, store_epoch FROM installation",
            tenant.id,
            shard_of(tenant.id),
            BATCH + 11,
        )
    retention = Retention(database, keep_seconds=3600)
    assert [(await retention.run_once()).outbox_rows for _ in range(3)] == [BATCH, 11, 0]


async def test_retention_deletes_events_of_the_audit_that_are_old_with_what_they_are_found_by(
    parts: Parts, database: Database, database_url: str
) -> None:
    tenant, root = await parts.tenant()
    for user in ("bob", "carol"):
        await parts.role(root, user, Role.VIEWER)
    await age(database_url, "audit", "seq <= 2")
    for_ever, for_a_day = Retention(database, 3600), Retention(database, 3600, audit_seconds=86400)
    assert (await for_ever.run_once()).audit_events == 0
    assert (await for_a_day.run_once()).audit_events == 2
    assert [row["seq"] for row in await sql(database_url, "SELECT seq FROM audit")] == [3]
    assert [row["object"] for row in await sql(database_url, "SELECT object FROM audit_mention")] == ["user:carol"]
    await as_owner(
        database_url,
        "audit",
        "INSERT INTO audit (tenant_id, principal, peer, request_id, method, object, ops, create_time)"
        " SELECT $1, '', '', '', '', '', '[]', now() - interval '2 days' FROM generate_series(1, $2)",
        tenant.id,
        BATCH + 10,
    )
    await age(database_url, "audit", "true")
    assert [(await for_a_day.run_once()).audit_events for _ in range(3)] == [BATCH, 11, 0]


async def age(url: str, table: str, where: str) -> None:
    await as_owner(url, table, f"UPDATE {table} SET create_time = now() - interval '2 days' WHERE {where}")


async def seqs(url: str, tenant: Tenant) -> list[int]:
    return [row["seq"] for row in await sql(url, "SELECT seq FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id)]
