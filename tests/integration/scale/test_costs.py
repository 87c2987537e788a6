"""What a change costs does not depend on how much there is beside it."""

from __future__ import annotations

import secrets

import asyncpg

from pemba.model import Role, TenantId, TenantScope
from tests.integration.conftest import Parts

MADE = 10
TEN, TEN_THOUSAND = (TenantId(f"ten_{n:026}") for n in (1, 0))
"""Each tenant's number of workspaces, as the database of this folder was loaded."""


async def rows_read(parts: Parts, connection: asyncpg.Connection) -> int:
    """Of all tables since the database began, as far as it was told."""
    async with parts.database.begin(TenantScope(TEN)) as tx:  # the pool gives out again what it got back last
        await tx.connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return int(
        await connection.fetchval("SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables")
    )


async def cost_of_creating(parts: Parts, connection: asyncpg.Connection, tenant_id: TenantId) -> int:
    """Rows that creating some workspaces reads, by a user who may."""
    parent = (await parts.workspaces.get_workspace(parts.system, tenant_id, workspace_id=None, path="")).record
    await parts.role(parent, "alice", Role.ADMIN)
    await parts.workspace(parent, f"first-{secrets.token_hex(4)}", caller=parts.acting("alice"))
    before = await rows_read(parts, connection)
    for _ in range(MADE):
        await parts.workspace(parent, f"made-{secrets.token_hex(4)}", caller=parts.acting("alice"))
    return await rows_read(parts, connection) - before


async def test_creating_a_workspace_reads_as_much_in_a_tenant_of_ten_thousand_as_in_one_of_ten(
    parts: Parts, connection: asyncpg.Connection
) -> None:
    few = await cost_of_creating(parts, connection, TEN)
    many = await cost_of_creating(parts, connection, TEN_THOUSAND)
    assert few >= MADE, "it is counted"
    assert many <= few + MADE
