"""The walls in the database: roles, row-level security, and constraints that make illegal states unstorable."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg import Connection

import pemba.storage
from pemba.storage import personal_rules
from pemba.storage.statement import Statement

ACME, OTHER = "ten_01h455vb4pex5vsknk084sn02q", "ten_01h455vb4pex5vsknk084sn02r"

TENANTS = f"""
    INSERT INTO users (id) VALUES ('alice'), ('bob');
    INSERT INTO tenants (id, slug, name, changed_seq)
        VALUES ('{ACME}', 'acme', 'Acme', 1), ('{OTHER}', 'other', 'O', 1);
    INSERT INTO tenant_head (tenant_id, shard, head_seq, store_epoch)
    SELECT heads.id, n, 1, store_epoch FROM installation, (VALUES ('{ACME}', 1), ('{OTHER}', 2)) AS heads (id, n);
    INSERT INTO workspaces (tenant_id, id, slug, name, kind, changed_seq)
        VALUES ('{ACME}', 'ws_root', 'root', 'Acme', 'root', 1), ('{OTHER}', 'ws_other', 'root', 'O', 'root', 1);
    INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)
        VALUES ('{ACME}', 'ws_a', 'ws_root', 'a', 'A', 'shared', 1);
    INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)
        VALUES ('{ACME}', NULL, 'user', 'alice', 'admin', 1), ('{ACME}', 'ws_a', 'user', 'alice', 'owner', 1);
    INSERT INTO workspaces (tenant_id, id, slug, name, kind, personal_user_id, changed_seq)
        VALUES ('{ACME}', 'ws_bobs', 'personal', 'Bob', 'personal', 'bob', 1);
    INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)
        VALUES ('{ACME}', 'ws_bobs', 'user', 'bob', 'owner', 1);
    INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, changed_seq)
        VALUES ('{ACME}', 'x', 'ws_a', 'ws_root', 'viewer', 1);
    INSERT INTO groups (tenant_id, id, slug, name, external_id, changed_seq) VALUES
        ('{ACME}', 'grp_a', 'a-team', 'A', 'okta-1', 1), ('{ACME}', 'grp_b', 'b-team', 'B', NULL, 1),
        ('{OTHER}', 'grp_other', 'other', 'O', NULL, 1);
    INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id) VALUES ('{ACME}', 'grp_a', 'user', 'bob');
    INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)
        VALUES ('{ACME}', 'ws_a', 'group', 'grp_a', 'admin', 1);
    INSERT INTO api_keys (tenant_id, id, name, prefix, scopes, secret_hash)
        VALUES ('{ACME}', 'key_a', 'A', 'pemba_a', '{{read}}', sha256('a')),
            (NULL, 'key_s', 'S', 'pemba_s', '{{read}}', sha256('s'));
"""

WORKSPACE = "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq, personal_user_id) VALUES "
GROUP = "INSERT INTO groups (tenant_id, id, slug, name, external_id, changed_seq) VALUES "
MEMBER = "INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id, manager) VALUES "
MEMBERSHIP = "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq) VALUES "
PARKED = (
    "INSERT INTO parked_operation"
    " (tenant_id, tuple, op, seq, since_seq, effect, reason, message, schema_number) VALUES "
)
DELIVERY = """
    INSERT INTO tenant_delivery
        (tenant_id, shard, delivered_seq, stamp, schema_number, store_epoch, parked_from, parked_under, closed)
    VALUES ('t', 1, 1, 1, 0, gen_random_uuid(), {})
"""

SHARE = "INSERT INTO shares (tenant_id, id, workspace_id, with_workspace_id, role, expire_time, changed_seq) VALUES "

KEY = "INSERT INTO api_keys (tenant_id, user_id, workspace_id, scopes, secret_hash, id, name, prefix) VALUES "

SETTING = (
    "INSERT INTO workspace_settings"
    " (tenant_id, workspace_id, namespace, name, value, sealed, sealed_under, changed_seq) VALUES "
)

AUDIT = (
    "INSERT INTO audit (tenant_id, principal, peer, request_id, method, object, ops, seq, outcome, reason, part, parts)"
    " VALUES "
)

ILLEGAL = {
    "a second root": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'root', 1, NULL)",
    "a parent of another tenant": WORKSPACE + f"('{ACME}', 'x', 'ws_other', 'x', 'X', 'shared', 1, NULL)",
    "a shared workspace without a parent": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'shared', 1, NULL)",
    "a sibling's slug": WORKSPACE + f"('{ACME}', 'x', 'ws_root', 'a', 'X', 'shared', 1, NULL)",
    "its own parent": f"UPDATE workspaces SET parent_id = id WHERE id = 'ws_a' AND tenant_id = '{ACME}'",
    "a personal workspace without its user": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'personal', 1, NULL)",
    "a shared workspace with a personal user": WORKSPACE + f"('{ACME}', 'x', 'ws_a', 'x', 'X', 'shared', 1, 'bob')",
    "a second personal workspace of a user": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'personal', 1, 'bob')",
    "a personal workspace with a parent": WORKSPACE + f"('{ACME}', 'x', 'ws_a', 'x', 'X', 'personal', 1, 'alice')",
    "a personal workspace without its member": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'personal', 1, 'alice')",
    "a personal workspace that lost its member": "DELETE FROM memberships WHERE workspace_id = 'ws_bobs'",
    "a personal workspace that is nobody's": "UPDATE workspaces SET personal_user_id = NULL WHERE id = 'ws_bobs'",
    "a workspace below a personal one": WORKSPACE + f"('{ACME}', 'x', 'ws_bobs', 'x', 'X', 'shared', 1, NULL)",
    "a workspace moved below a personal one": "UPDATE workspaces SET parent_id = 'ws_bobs' WHERE id = 'ws_a'",
    "another member of a personal workspace": MEMBERSHIP + f"('{ACME}', 'ws_bobs', 'user', 'alice', 'viewer', 1)",
    "another owner of a personal workspace": MEMBERSHIP + f"('{ACME}', 'ws_bobs', 'user', 'alice', 'owner', 1)",
    "a group in a personal workspace": MEMBERSHIP + f"('{ACME}', 'ws_bobs', 'group', 'grp_a', 'viewer', 1)",
    "another role of a personal workspace's user": "UPDATE memberships SET role = 'admin'"
    " WHERE workspace_id = 'ws_bobs'",
    "a role that becomes one on a personal workspace": "UPDATE memberships SET workspace_id = 'ws_bobs'"
    " WHERE workspace_id = 'ws_a' AND subject_id = 'alice'",
    "a share of a personal workspace": SHARE + f"('{ACME}', 'y', 'ws_bobs', 'ws_a', 'viewer', NULL, 1)",
    "a share with a personal workspace": SHARE + f"('{ACME}', 'y', 'ws_root', 'ws_bobs', 'viewer', NULL, 1)",
    "a setting that is a value and a secret": SETTING + f"('{ACME}', 'ws_a', 'mail', 'x', '1', 'sealed', 'k', 1)",
    "a setting that is neither": SETTING + f"('{ACME}', 'ws_a', 'mail', 'x', NULL, NULL, NULL, 1)",
    "a secret under no key": SETTING + f"('{ACME}', 'ws_a', 'mail', 'x', NULL, 'sealed', NULL, 1)",
    "a setting of another tenant's workspace": SETTING + f"('{ACME}', 'ws_other', 'mail', 'x', '1', NULL, NULL, 1)",
    "a setting without a name": SETTING + f"('{ACME}', 'ws_a', 'mail', '', '1', NULL, NULL, 1)",
    "an unknown kind": WORKSPACE + f"('{ACME}', 'x', NULL, 'x', 'X', 'other', 1, NULL)",
    "an archived root": "UPDATE workspaces SET archive_time = now(), archived_with = id WHERE id = 'ws_root'",
    "archived with nothing": "UPDATE workspaces SET archive_time = now() WHERE id = 'ws_a'",
    "a parent deleted under its children": "DELETE FROM workspaces WHERE id = 'ws_root'",
    "a workspace deleted under its members": "DELETE FROM workspaces WHERE id = 'ws_a'",
    "a tenant deleted under its workspaces": f"DELETE FROM tenants WHERE id = '{OTHER}'",
    "a second role on the tenant": MEMBERSHIP + f"('{ACME}', NULL, 'user', 'alice', 'member', 1)",
    "a second role on a workspace": MEMBERSHIP + f"('{ACME}', 'ws_a', 'user', 'alice', 'viewer', 1)",
    "a role on another tenant's workspace": MEMBERSHIP + f"('{ACME}', 'ws_other', 'user', 'bob', 'viewer', 1)",
    "an owner of a tenant": MEMBERSHIP + f"('{ACME}', NULL, 'user', 'bob', 'owner', 1)",
    "an unknown role": MEMBERSHIP + f"('{ACME}', 'ws_a', 'user', 'bob', 'editor', 1)",
    "a role of an unknown user": MEMBERSHIP + f"('{ACME}', 'ws_a', 'user', 'carol', 'viewer', 1)",
    "a second share of the same two": SHARE + f"('{ACME}', 'y', 'ws_a', 'ws_root', 'admin', NULL, 1)",
    "a share with itself": SHARE + f"('{ACME}', 'y', 'ws_a', 'ws_a', 'viewer', NULL, 1)",
    "a share of another tenant's workspace": SHARE + f"('{ACME}', 'y', 'ws_other', 'ws_a', 'viewer', NULL, 1)",
    "a share with another tenant's workspace": SHARE + f"('{ACME}', 'y', 'ws_a', 'ws_other', 'viewer', NULL, 1)",
    "a share that makes owners": SHARE + f"('{ACME}', 'y', 'ws_root', 'ws_a', 'owner', NULL, 1)",
    "a share that ends within a second": SHARE
    + f"('{ACME}', 'y', 'ws_root', 'ws_a', 'viewer', '2030-01-01 00:00:00.5Z', 1)",
    "an owner that is a group": MEMBERSHIP + f"('{ACME}', 'ws_root', 'group', 'grp_a', 'owner', 1)",
    "a role of an unknown group": MEMBERSHIP + f"('{ACME}', 'ws_root', 'group', 'grp_x', 'viewer', 1)",
    "a role of another tenant's group": MEMBERSHIP + f"('{ACME}', 'ws_root', 'group', 'grp_other', 'viewer', 1)",
    "a taken slug of a group": GROUP + f"('{ACME}', 'grp_x', 'a-team', 'X', NULL, 1)",
    "a taken external id": GROUP + f"('{ACME}', 'grp_x', 'x-team', 'X', 'okta-1', 1)",
    "an empty external id": GROUP + f"('{ACME}', 'grp_x', 'x-team', 'X', '', 1)",
    "a second place in a group": MEMBER + f"('{ACME}', 'grp_a', 'user', 'bob', true)",
    "another tenant's group in a group": MEMBER + f"('{ACME}', 'grp_a', 'group', 'grp_other', false)",
    "a group in itself": MEMBER + f"('{ACME}', 'grp_a', 'group', 'grp_a', false)",
    "a manager that is a group": MEMBER + f"('{ACME}', 'grp_a', 'group', 'grp_b', true)",
    "an unknown user in a group": MEMBER + f"('{ACME}', 'grp_a', 'user', 'carol', false)",
    "an owner that is a key": MEMBERSHIP + f"('{ACME}', 'ws_root', 'api_key', 'key_a', 'owner', 1)",
    "a role of an unknown key": MEMBERSHIP + f"('{ACME}', 'ws_root', 'api_key', 'key_x', 'viewer', 1)",
    "a role of a system key": MEMBERSHIP + f"('{ACME}', 'ws_root', 'api_key', 'key_s', 'viewer', 1)",
    "another tenant's key in a group": MEMBER + f"('{ACME}', 'grp_a', 'api_key', 'key_s', false)",
    "a manager that is a key": MEMBER + f"('{ACME}', 'grp_a', 'api_key', 'key_a', true)",
    "a key deleted under its roles": f"INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id,"
    f" role, changed_seq) VALUES ('{ACME}', 'ws_a', 'api_key', 'key_a', 'viewer', 1);"
    " DELETE FROM api_keys WHERE id = 'key_a'",
    "a group deleted under its roles": "DELETE FROM group_members; DELETE FROM groups WHERE id = 'grp_a'",
    "a group deleted under its members": "DELETE FROM memberships WHERE group_id = 'grp_a'; DELETE FROM groups",
    "a key without scopes": KEY + f"('{ACME}', NULL, NULL, '{{}}', sha256('x'), 'k', 'K', '')",
    "a key of an unknown scope": KEY + f"('{ACME}', NULL, NULL, '{{read,all}}', sha256('x'), 'k', 'K', '')",
    "a key whose secret is stored": KEY + f"('{ACME}', NULL, NULL, '{{read}}', 'pemba_x', 'k', 'K', '')",
    "two keys with one secret": KEY + f"('{ACME}', NULL, NULL, '{{read}}', sha256('a'), 'k', 'K', '')",
    "a user's key that acts for others": KEY + f"('{ACME}', 'bob', NULL, '{{read,act_as}}', sha256('x'), 'k', 'K', '')",
    "an unknown user's key": KEY + f"('{ACME}', 'carol', NULL, '{{read}}', sha256('x'), 'k', 'K', '')",
    "a key of another tenant's workspace": KEY + f"('{ACME}', NULL, 'ws_other', '{{read}}', sha256('x'), 'k', 'K', '')",
    "a system key of a workspace": KEY + "(NULL, NULL, 'ws_a', '{read}', sha256('x'), 'k', 'K', '')",
    "a secret that was good for no time": "UPDATE api_keys SET previous_hash = sha256('x') WHERE id = 'key_a'",
    "a workspace deleted under its key": "UPDATE api_keys SET workspace_id = 'ws_a' WHERE id = 'key_a';"
    " DELETE FROM memberships; DELETE FROM shares; DELETE FROM workspaces WHERE id = 'ws_a'",
    "a taken slug of a tenant": f"UPDATE tenants SET slug = 'acme' WHERE id = '{OTHER}'",
    "suspended without a time": f"UPDATE tenants SET status = 'suspended' WHERE id = '{ACME}'",
    "a suspended user without a time": "UPDATE users SET status = 'suspended' WHERE id = 'alice'",
    "a user deleted under their roles": "DELETE FROM users WHERE id = 'alice'",
    "a user's id that is too long": "INSERT INTO users (id) VALUES (repeat('a', 257))",
    "an email of two users, whatever its case": "UPDATE users SET email = CASE id WHEN 'bob' THEN 'A@b' ELSE 'a@B' END",
    "an active user whose activation is under way": "UPDATE users SET activating = true WHERE id = 'alice'",
    "another tenant's workspace as current": f"INSERT INTO user_current_workspace VALUES ('bob', '{OTHER}', 'ws_a')",
    "a row that miscounts": f"INSERT INTO outbox VALUES ('{ACME}', 1, 1, '[]', 1, 0, '{{}}')",
    "row number nought": f"INSERT INTO outbox VALUES ('{ACME}', 0, 1, '[]', 0, 0, '{{}}')",
    "a status of nobody": "INSERT INTO outbox VALUES ('~', 1, 6, '[]', 0, 0, '{}')",
    "a tenant's row about a status": f"INSERT INTO outbox VALUES ('{ACME}', 1, 1, '[]', 0, 0, '{{}}', now(), 'user:b')",
    "a parked operation of a row before the first": PARKED + "('t', 'x', 'touch', 1, 0, 'grants_less', '', '', 0)",
    "a parked DELETE that grants less": PARKED + "('t', 'x', 'delete', 1, 1, 'grants_less', '', '', 0)",
    "closed checks without a parked operation": DELIVERY.format("NULL, NULL, true"),
    "a parked row without its schema": DELIVERY.format("1, NULL, false"),
    "a refusal without a reason": AUDIT + "('t', '', '', '', '', '', '[]', NULL, 'refused', NULL, 0, 1)",
    "a read with a number": AUDIT + "('t', '', '', '', '', '', '[]', 1, 'read', NULL, 0, 1)",
    "a part beyond the last": AUDIT + "('t', '', '', '', '', '', '[]', 1, 'changed', NULL, 2, 2)",
    "two changes of one number": AUDIT + ", ".join(["('t', '', '', '', '', '', '[]', 1, 'changed', NULL, 0, 1)"] * 2),
    "a second installation": "INSERT INTO installation VALUES (2, gen_random_uuid(), gen_random_uuid())",
    "a seventeenth shard": "INSERT INTO relay_lease (shard) VALUES (16)",
    "a lease held by nobody": "UPDATE relay_lease SET lease_until = now() WHERE shard = 0",
}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(TENANTS)
    yield connection
    await connection.close()


async def as_the_api(connection: Connection, statement: str) -> None:
    """One statement as the API's role, of the tenant ACME."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE pemba_api; SET LOCAL pemba.tenant_id = '{ACME}'")
        await connection.execute(statement)


@pytest.mark.parametrize("what", ILLEGAL)
async def test_an_illegal_state_cannot_be_stored(connection: Connection, what: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await connection.execute(ILLEGAL[what])


@pytest.mark.parametrize("role", ["pemba_api", "pemba_system"])
@pytest.mark.parametrize("column", ["kind", "personal_user_id", "tenant_id", "id", "slug", "creator_id"])
async def test_no_role_that_a_server_takes_on_changes_what_is_frozen(
    connection: Connection, role: str, column: str
) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {role}; SET LOCAL pemba.tenant_id = '{ACME}'")
        assert await connection.execute("UPDATE workspaces SET name = 'X' WHERE id = 'ws_a'") == "UPDATE 1"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"UPDATE workspaces SET {column} = {column}")


async def test_the_member_of_a_personal_workspace_goes_only_with_it(connection: Connection) -> None:
    member, workspace = (
        "DELETE FROM memberships WHERE workspace_id = 'ws_bobs'",
        "DELETE FROM workspaces WHERE id = 'ws_bobs'",
    )
    with pytest.raises(asyncpg.CheckViolationError) as lost:
        await as_the_api(connection, member)
    assert lost.value.constraint_name == personal_rules.MEMBERSHIP
    await as_the_api(connection, f"{member}; {workspace}")


TENANTS_TABLES = (
    "tenants",
    "tenant_deletion",
    "workspaces",
    "memberships",
    "workspace_settings",
    "shares",
    "groups",
    "group_members",
    "user_current_workspace",
    "api_keys",
    "invitations",
    "tenant_head",
    "outbox",
    "tenant_delivery",
    "parked_operation",
    "idempotency",
    "audit",
    "audit_mention",
)


@pytest.mark.parametrize("table", TENANTS_TABLES)
async def test_the_apis_role_sees_no_row_without_a_tenant(connection: Connection, table: str) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL ROLE pemba_api")
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_the_apis_role_sees_and_changes_its_own_tenant_alone(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE pemba_api; SET LOCAL pemba.tenant_id = '{ACME}'")
        assert await connection.fetchval("SELECT array_agg(slug) FROM tenants") == ["acme"]
        assert await connection.fetchval("SELECT array_agg(DISTINCT tenant_id) FROM workspaces") == [ACME]
        assert await connection.execute(f"UPDATE workspaces SET name = 'x' WHERE tenant_id = '{OTHER}'") == "UPDATE 0"
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        await as_the_api(connection, f"INSERT INTO outbox VALUES ('{OTHER}', 1, 1, '[]', 0, 0, '{{}}')")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET method = 'x'",
        "DELETE FROM audit",
        "DELETE FROM audit_mention",
        "DELETE FROM outbox",
        "UPDATE outbox SET ops = '[]'",
        "UPDATE users SET status = 'active'",
        "UPDATE tenant_delivery SET delivered_seq = 9",
        "UPDATE relay_lease SET epoch = 9",
        "INSERT INTO tenants (id, slug, name, changed_seq) VALUES ('x', 'xxx', 'x', 1)",
        "UPDATE installation SET schema_number = 9",
        "ALTER TABLE audit DISABLE ROW LEVEL SECURITY",
    ],
)
async def test_the_apis_role_may_not(connection: Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await as_the_api(connection, statement)


async def test_no_role_that_a_server_takes_on_is_an_owner_or_passes_row_level_security(connection: Connection) -> None:
    roles = await connection.fetch(
        "SELECT rolname, rolsuper OR rolbypassrls OR rolcanlogin OR EXISTS"
        " (SELECT FROM pg_class WHERE relowner = r.oid) AS strong FROM pg_roles r WHERE rolname LIKE 'pemba\\_%'"
    )
    assert {r["rolname"]: r["strong"] for r in roles} == {
        "pemba_api": False,
        "pemba_system": False,
        "pemba_relay": False,
    }


async def test_every_table_of_a_tenant_forces_row_level_security(connection: Connection) -> None:
    forced = await connection.fetchval(
        "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
    )
    with_tenant = await connection.fetchval(
        "SELECT array_agg(DISTINCT table_name::text) FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'tenant_id'"
    )
    assert set(forced) == {*with_tenant, "tenants"} == set(TENANTS_TABLES)


async def test_every_statement_of_the_code_is_understood_by_the_migrated_database(connection: Connection) -> None:
    for module in pkgutil.walk_packages(pemba.storage.__path__, "pemba.storage."):
        if ".migrations" not in module.name:
            importlib.import_module(module.name)
    assert len(Statement.every) > 50
    for statement in Statement.every:
        await connection.prepare(statement.sql)
