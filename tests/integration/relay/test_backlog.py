"""A backlog: nobody else waits for it, and neither memory nor what a look at the database costs grows with it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pemba.model import Role, Seq
from pemba.storage import delivery
from pemba.storage.database import RELAY_ROLE, Database
from pemba.storage.delivery import DueTenant
from pemba.storage.statement import Statement
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying
from tests.integration.relay.test_delivery import Made, add_rows, object_of, tenant_in
from tests.stack import Processes, processes
from tests.truth import as_owner, eventually, is_delivered, positions, sql

ROWS = 50_000
PROMPT_SECONDS = 3.0
"""Alone each takes some 30 ms."""
MEGABYTE = 1024 * 1024


async def backlog(url: str, made: Made, rows: int, operations: int = 1, users: int = 10_000_000) -> None:
    """Rows of as many operations each, on the viewers of a workspace; after so many users they are the same again."""

    def viewers(n: str) -> str:
        return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
            '{object_of(made)}#viewer@user:u' || ({n} * {operations} + i) % {users}))
            FROM generate_series(1, {operations}) AS i)"""

    await add_rows(url, made[0], viewers, rows)


async def seconds_to_deliver(parts: Parts, url: str, made: Made, user: str) -> float:
    await parts.role(made[1], user, Role.VIEWER)
    began = time.monotonic()
    await eventually(lambda: is_delivered(url, made[0].id), 2 * PROMPT_SECONDS)
    return time.monotonic() - began


async def two_far_behind(parts: Parts, url: str) -> list[Made]:
    """Tenants of one shard whose batches fill its requests."""
    await as_owner(url, "outbox", "ANALYZE outbox, tenant_head, tenant_delivery")  # as small as they are now
    behind = [await tenant_in(parts, 5), await tenant_in(parts, 5)]
    for made in behind:
        await backlog(url, made, ROWS)
    return behind


async def undelivered(url: str, some: Sequence[Made]) -> list[int]:
    return [head - delivered for head, delivered in [await positions(url, made[0].id) for made in some]]


@pytest.mark.parametrize("relays", [1, 2])
async def test_a_backlog_of_a_hundred_thousand_rows_holds_up_no_other_tenant(
    parts: Parts, relaying: Relaying, database_url: str, relays: int
) -> None:
    same_shard, other_shard = await tenant_in(parts, 5), await tenant_in(parts, 6)
    behind = await two_far_behind(parts, database_url)
    async with AsyncExitStack() as running:
        for _ in range(relays):
            await running.enter_async_context(relaying())
        # From the first position on everything is under way.
        await eventually(lambda: is_delivered(database_url, same_shard[0].id))
        await eventually(lambda: is_delivered(database_url, other_shard[0].id))
        for turn in range(5):
            for other in (same_shard, other_shard):
                assert await seconds_to_deliver(parts, database_url, other, f"user-{turn}") < PROMPT_SECONDS
        left = await undelivered(database_url, behind)
    assert min(left) > 0, "the backlog was there all the time"
    assert max(left) < ROWS, "it is delivered as well"


async def test_it_would_where_those_come_first_that_are_furthest_behind(
    parts: Parts, relaying: Relaying, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = "ORDER BY d.update_time NULLS FIRST"
    assert waiting in delivery._DUE.sql
    furthest = "ORDER BY h.head_seq - coalesce(d.delivered_seq, 0) DESC"
    monkeypatch.setattr(delivery._DUE, "sql", delivery._DUE.sql.replace(waiting, furthest))
    same_shard = await tenant_in(parts, 5)
    behind = await two_far_behind(parts, database_url)
    async with relaying():
        await eventually(lambda: moves(database_url, behind))
        with pytest.raises(AssertionError, match="still gives False"):
            await seconds_to_deliver(parts, database_url, same_shard, "bob")


async def moves(url: str, behind: Sequence[Made]) -> bool:
    return max(await undelivered(url, behind)) < ROWS


@pytest.fixture
async def ten_thousand(parts: Parts, database_url: str) -> str:
    """Tenants, of whom every hundredth is behind; the url."""
    await as_owner(
        database_url,
        "tenant_head",
        """
        INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
        SELECT 'ten_' || n, n % 16, 1000, store_epoch FROM generate_series(1, 10000) AS n, installation
        """,
    )
    await as_owner(
        database_url,
        "tenant_delivery",
        """
        INSERT INTO tenant_delivery (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch)
        SELECT tenant_id, shard, CASE WHEN substr(tenant_id, 5)::int % 100 = 3 THEN 0 ELSE 1000 END, 1, 0, store_epoch
        FROM tenant_head WHERE head_seq = 1000
        """,
    )
    await as_owner(database_url, "tenant_head", "ANALYZE tenant_head, tenant_delivery, outbox")
    return database_url


async def test_a_look_for_what_is_due_reads_streams_and_no_row_of_theirs(ten_thousand: str, database: Database) -> None:
    async with database.begin_relay() as tx:
        due = await delivery.due_shards(tx, [3, 4])
    assert due == {3: 25_000}, "counted, though the outbox holds none of these"
    read = await rows_read(database, delivery._DUE_SHARDS, {"shards": list(range(16))})
    assert read.keys() == {"tenant_head", "tenant_delivery"}
    assert sum(read.values()) <= 2 * 10_000 + 10


async def test_a_round_looks_at_the_streams_of_its_own_shard(ten_thousand: str, database: Database) -> None:
    read = await rows_read(database, delivery._DUE, {"shard": 3, "limit": 64, "without": []})
    assert read.keys() == {"tenant_head", "tenant_delivery"}
    assert sum(read.values()) <= 2 * 625 + 10


async def test_a_round_reads_its_own_rows_of_however_many_whenever_it_was_planned(
    parts: Parts, database: Database, database_url: str
) -> None:
    async with database.connection(RELAY_ROLE) as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(f"PREPARE round AS {delivery._ROUND.sql}")
        await connection.execute(executed([]))
        behind = await two_far_behind(parts, database_url)
        due = [DueTenant(made[0].id, Seq(ROWS), Seq(30_000)) for made in behind]
        for _ in range(2):
            plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {executed(due)}")
            assert rows_by_table(plan) == {"outbox": 2 * 1000}, "how far it goes, and what it carries"
            await as_owner(database_url, "outbox", "ANALYZE outbox")


def executed(due: Sequence[DueTenant]) -> str:
    values = delivery._ROUND.arguments(delivery._bounded(due))
    return f"EXECUTE round ({', '.join(literal(value) for value in values)})"


def literal(value: object) -> str:
    return f"'{{{','.join(map(str, value))}}}'" if isinstance(value, list) else str(value)


async def rows_read(database: Database, statement: Statement, parameters: dict[str, object]) -> dict[str, float]:
    """By table, as the plan for any parameters does it."""
    async with database.begin_relay() as tx:
        await tx.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        return rows_by_table(
            await tx.connection.fetchval(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", *statement.arguments(parameters)
            )
        )


def rows_by_table(plan: str) -> dict[str, float]:
    """How many rows an executed plan looked at."""
    read: dict[str, float] = {}
    pending = [json.loads(plan)[0]["Plan"]]
    while pending:
        node = pending.pop()
        pending += node.get("Plans", ())
        if table := node.get("Relation Name"):
            rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            read[table] = read.get(table, 0) + rows
    return read


@pytest.mark.parametrize(
    ("rows", "operations", "taken"),
    [
        pytest.param((1, 1, 1), 400, (1, 1), id="operations"),
        pytest.param((1, 1, 1), 500, (1, 1), id="just as many operations"),
        pytest.param((600, 600, 1), 0, (500, 500), id="rows"),
        pytest.param((1, 2, 3), 10, (1, 2, 3), id="all of them"),
        pytest.param((0, 1, 0), 10, (0, 1, 0), id="nothing where a row is missing"),
    ],
)
async def test_a_request_takes_whole_batches_from_the_first_on(
    parts: Parts, database: Database, database_url: str, rows: tuple[int, ...], operations: int, taken: tuple[int, ...]
) -> None:
    due = []
    for many in rows:
        made = await parts.tenant()
        if operations:
            await backlog(database_url, made, many, operations)
        else:
            await add_rows(database_url, made[0], lambda _: "'[]'::jsonb", many)
        due.append(DueTenant(made[0].id, (await positions(database_url, made[0].id))[0], Seq(1)))
    async with database.begin_relay() as tx:
        found = await delivery.prefixes(tx, due)
    assert list(found) == [each.tenant_id for each in due[: len(taken)]]
    assert tuple(len(each) for each in found.values()) == taken
    assert all(row.seq == 2 + n for each in found.values() for n, row in enumerate(each))


async def test_a_request_is_no_larger_than_spicedb_takes(
    parts: Parts, database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = []
    for _ in range(3):
        made = await parts.tenant()
        await backlog(database_url, made, 1, 400)
        due.append(DueTenant(made[0].id, (await positions(database_url, made[0].id))[0], Seq(1)))
    [[each]] = await sql(database_url, "SELECT max(op_bytes) FROM outbox")
    for taken in (1, 2):
        monkeypatch.setattr(delivery, "MAX_REQUEST_BYTES", taken * each)
        async with database.begin_relay() as tx:
            assert len(await delivery.prefixes(tx, due)) == taken


async def test_the_memory_of_a_relay_does_not_grow_with_what_waits(spicedb, database_url: str, tmp_path: Path) -> None:
    reached = {"database_url": database_url, "spicedb_endpoint": spicedb.endpoint, "spicedb_key": spicedb.key}
    async with processes(tmp_path, **reached) as running:
        few = await peak_bytes(running, database_url, await streams(database_url, "few", 2, rows=500))
        long = await streams(database_url, "long", 4, rows=25_000)
        broad = await streams(database_url, "broad", 60, operations=500)
        many = await peak_bytes(running, database_url, [*long, *broad])
    assert many - few < 10 * MEGABYTE, f"{few / MEGABYTE:.0f} MiB, and {many / MEGABYTE:.0f} MiB"


async def streams(url: str, name: str, many: int, rows: int = 1, operations: int = 1) -> list[str]:
    """Of one shard, with rows that no mutation made: of several rows each touches one of ten tuples."""
    made = await sql(
        url,
        f"""
        WITH head AS (
            INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
            SELECT 'ten_{name}_' || stream, 5, {rows}, store_epoch FROM generate_series(1, {many}) stream, installation
            RETURNING tenant_id
        ), filled AS (
            INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace)
            SELECT tenant_id, n, 5, ops, {operations}, length(ops::text), '{{}}'
            FROM head, generate_series(1, {rows}) AS n, LATERAL (
                SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
                    'workspace:' || tenant_id || '/' || i || '#viewer@user:user' || n % 10)) AS ops
                FROM generate_series(1, {operations}) AS i
            ) row
        )
        SELECT tenant_id FROM head
        """,
    )
    return [each["tenant_id"] for each in made]


async def peak_bytes(running: Processes, url: str, tenants: Sequence[str]) -> int:
    """Of a relay that delivers all of these, from its start on."""
    relay = await running.relay()
    for tenant in tenants:
        await eventually(lambda tenant=tenant: is_delivered(url, tenant), 60, every=0.1)
    peak = _peak_bytes(relay.pid)
    await running.stop(relay)
    return peak


def _peak_bytes(pid: int | None) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(kilobytes) * 1024
