"""Promise 6: a backlog of 10,000 rows in one tenant: the others' delivery stays prompt."""

from __future__ import annotations

import pytest

from pemba.model import Role
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery
from pemba.storage.statement import Statement
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying
from tests.integration.relay.test_delivery import add_rows, object_of, tenant_in
from tests.promises.conftest import is_broken
from tests.truth import eventually, is_delivered, positions, stored

ROWS = 10_000
MEANWHILE = 2_000
"""Rows of the backlog that may go while a change beside it waits: so many are eight of its rounds."""


async def test_a_backlog_of_ten_thousand_rows_holds_up_no_other_tenant(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    behind = await tenant_in(parts, 5)
    same_shard, other_shard = await tenant_in(parts, 5), await tenant_in(parts, 6)

    def two_tuples(n: str) -> str:
        return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
            '{object_of(behind)}#viewer@user:u' || {n} || '-' || i)) FROM generate_series(1, 2) AS i)"""

    await add_rows(database_url, behind[0], two_tuples, rows=ROWS)
    async with relaying():
        for turn in range(5):
            for others in (same_shard, other_shard):
                _, before = await positions(database_url, behind[0].id)
                await parts.role(others[1], f"user-{turn}", Role.VIEWER)
                await eventually(lambda others=others: is_delivered(database_url, others[0].id), 5)
                _, after = await positions(database_url, behind[0].id)
                assert others is other_shard or after - before <= MEANWHILE, "it waited for the backlog"
        head, delivered = await positions(database_url, behind[0].id)
        assert head == ROWS + 1
        assert delivered < head, "the backlog was there all the time"
        await eventually(lambda: is_delivered(database_url, behind[0].id), 60)
    assert len(await stored(store, behind[0].id)) == 2 + 2 * ROWS


async def test_it_is_broken_where_the_one_that_is_furthest_behind_comes_first(
    parts: Parts, relaying: Relaying, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    furthest_first = """
        SELECT h.tenant_id, h.head_seq, coalesce(d.delivered_seq, 0) AS delivered_seq, d.parked_from
        FROM tenant_head h LEFT JOIN tenant_delivery d ON d.tenant_id = h.tenant_id
        WHERE h.shard = :shard AND h.head_seq > coalesce(d.delivered_seq, 0)
            AND h.tenant_id <> ALL (CAST(:without AS text[]))
        ORDER BY h.head_seq - coalesce(d.delivered_seq, 0) DESC LIMIT least(:limit, 1)
    """
    monkeypatch.setattr(delivery, "_DUE", Statement(furthest_first))
    behind, waiting = await tenant_in(parts, 5), await tenant_in(parts, 5)

    def tuples(n: str) -> str:
        return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
            '{object_of(behind)}#viewer@user:u' || {n} || '-' || i)) FROM generate_series(1, 6) AS i)"""

    await add_rows(database_url, behind[0], tuples, rows=ROWS)
    async with relaying():
        with is_broken("still gives False"):
            await eventually(lambda: is_delivered(database_url, waiting[0].id), 1.5)
