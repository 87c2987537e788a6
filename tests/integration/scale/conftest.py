"""A database with 100,000 workspaces, that the tests of this folder share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from pemba.dev.backends import PostgresAccess

# 9,000 tenants of 10 workspaces, and one of 10,000; two roles on each workspace.
LOAD = """
    CREATE FUNCTION typeid(prefix text, n int) RETURNS text IMMUTABLE RETURN prefix || '_' || lpad(n::text, 26, '0');
    CREATE FUNCTION within(prefix text, tenant text, n int) RETURNS text IMMUTABLE
        RETURN typeid(prefix, right(tenant, 9)::int * 10000 + n);
    INSERT INTO users (id, email) SELECT 'user-' || n, 'user-' || n || '@acme.test' FROM generate_series(1, 50000) n;
    INSERT INTO tenants (id, slug, name, changed_seq)
        SELECT typeid('ten', n), 'tenant-' || n, 'Tenant', 1 FROM generate_series(0, 9000) n;
    INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
        SELECT id, abs(hashtext(id)) % 16, 10, gen_random_uuid() FROM tenants;
    INSERT INTO tenant_delivery (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch)
        SELECT tenant_id, shard, 10, row_number() OVER (PARTITION BY shard), 2, store_epoch
        FROM tenant_head WHERE tenant_id <> '~';
    INSERT INTO workspaces (tenant_id, id, slug, name, kind, changed_seq)
        SELECT id, within('ws', id, 0), 'root', 'Root', 'root', 1 FROM tenants;
    INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)
        SELECT t.id, within('ws', t.id, n), within('ws', t.id, n / 10), 'slug-' || n, 'Name', 'shared', 1
        FROM tenants t, generate_series(1, CASE t.id WHEN typeid('ten', 0) THEN 9999 ELSE 9 END) n;
    INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)
        SELECT tenant_id, id, 'user', 'user-' || (abs(hashtext(id)) % 25000 + 25000 * k + 1), 'member', 1
        FROM workspaces, generate_series(0, 1) k;
    INSERT INTO memberships (tenant_id, subject_type, subject_id, role, changed_seq)
        SELECT id, 'user', 'user-' || abs(hashtext(id)) % 49000 + n, 'admin', 1 FROM tenants, generate_series(1, 2) n
        WHERE id <> typeid('ten', 0);
    INSERT INTO workspace_settings (tenant_id, workspace_id, namespace, name, value, sealed, sealed_under, changed_seq)
        SELECT tenant_id, id, 'mail', 'port', '25'::jsonb, NULL, NULL, 1 FROM workspaces
        UNION ALL SELECT tenant_id, id, 'mail', 'password', NULL, 'sealed', 'key', 1 FROM workspaces
        WHERE kind = 'root';
    INSERT INTO groups (tenant_id, id, slug, name, changed_seq)
        SELECT id, within('grp', id, n), 'group-' || n, 'Group', 1 FROM tenants, generate_series(1, 2) n;
    INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id)
        SELECT tenant_id, id, 'user', 'user-' || abs(hashtext(id)) % 49000 + n FROM groups, generate_series(1, 3) n;
    INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, changed_seq)
        SELECT id, within('shr', id, n), within('ws', id, n), within('ws', id, n + 1), 'viewer', 1
        FROM tenants, generate_series(1, 2) n;
    INSERT INTO outbox (tenant_id, seq, shard, ops, op_count, op_bytes, trace, create_time)
        SELECT tenant_id, n, shard, '[]', 0, 2, '{}', now() - random() * interval '7 days'
        FROM tenant_head, generate_series(1, 10) n WHERE tenant_id <> '~';
    INSERT INTO audit (tenant_id, seq, create_time, principal, peer, request_id, method, object, ops)
        SELECT tenant_id, seq, create_time, 'nobody', '', '', 'SetRole', 'workspace:ws', '[]' FROM outbox;
    INSERT INTO audit_mention (tenant_id, object, audit_id) SELECT tenant_id, 'user:user-' || id % 50000, id FROM audit;
    INSERT INTO idempotency (tenant_id, principal, acting_user, method, request_id, body_digest, create_time)
        SELECT tenant_id, 'nobody', '', 'SetRole', seq::text, '', create_time FROM outbox;
"""


async def _load(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        tables = [row[0] for row in await connection.fetch("SELECT relname FROM pg_class WHERE relforcerowsecurity")]
        await connection.execute("".join(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;" for table in tables))
        await connection.execute(LOAD)
        await connection.execute("".join(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;" for table in tables))
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


@pytest.fixture(scope="package")
def large_database_url(postgres: PostgresAccess, template_database: str) -> Iterator[str]:
    name = postgres.create_database(template_database)
    try:
        asyncio.run(_load(postgres.url(name)))
        yield postgres.url(name)
    finally:
        postgres.drop_database(name)


@pytest.fixture
def database_url(large_database_url: str) -> str:
    """What services of this folder's tests work on."""
    return large_database_url


@pytest.fixture
async def connection(large_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """As the owner of the tables."""
    connection = await asyncpg.connect(large_database_url)
    yield connection
    await connection.close()
