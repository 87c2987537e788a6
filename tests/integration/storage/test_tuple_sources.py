"""Pages of all records: every one once, in any number of tenants, and each page as cheap as the first."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator

from pemba.model import Role, SystemScope, TenantId
from pemba.storage import tuple_sources
from pemba.storage.statement import Statement
from pemba.storage.tuple_sources import PAGE
from tests.integration.conftest import Parts
from tests.truth import as_owner

WHY = SystemScope("test")
MANY = 30_000


async def add_roles(url: str, tenant_id: str, place: str | None, many: int) -> None:
    """Roles of member-100000 and so on."""
    numbers = f"generate_series(100000, {100000 + many - 1}) AS n"
    await as_owner(
        url, "users", f"INSERT INTO users (id) SELECT 'member-' || n FROM {numbers} ON CONFLICT (id) DO NOTHING"
    )
    await as_owner(
        url,
        "memberships",
        "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
        f" SELECT $1, $2, 'user', 'member-' || n, 'member', 1 FROM {numbers}",
        tenant_id,
        place,
    )


async def add_members(url: str, tenant_id: str, group: str, many: int) -> None:
    """member-100000 and so on into a new group."""
    numbers = f"generate_series(100000, {100000 + many - 1}) AS n"
    await as_owner(
        url, "users", f"INSERT INTO users (id) SELECT 'member-' || n FROM {numbers} ON CONFLICT (id) DO NOTHING"
    )
    await as_owner(
        url,
        "groups",
        "INSERT INTO groups (tenant_id, id, slug, name, changed_seq) VALUES ($1, $2, $2, 'G', 1)",
        tenant_id,
        group,
    )
    await as_owner(
        url,
        "group_members",
        "INSERT INTO group_members (tenant_id, group_id, subject_type, subject_id)"
        f" SELECT $1, $2, 'user', 'member-' || n FROM {numbers}",
        tenant_id,
        group,
    )


async def all_of(parts: Parts, read: Callable[..., Awaitable[list]], tenant_id: TenantId | None) -> list:
    found: list = []
    last = None
    while True:
        async with parts.database.begin(WHY) as tx:
            page = await read(tx, tenant_id, last)
        found += page
        if len(page) < PAGE:
            return found
        last = page[-1]


async def test_every_record_of_every_tenant_comes_once_or_those_of_one(parts: Parts, database_url: str) -> None:
    made = [await parts.tenant(admin) for admin in ("alice", "bob", "carol")]
    for (tenant, root), many in zip(made, (PAGE - 1, PAGE, PAGE + 1), strict=True):
        child = await parts.workspace(root, "eng", owner="dave")
        await parts.role(child, "frank", Role.VIEWER)
        await add_roles(database_url, tenant.id, None, many)
        await add_roles(database_url, tenant.id, child.id, PAGE // 2)
        await add_roles(database_url, tenant.id, root.id, PAGE // 2)
        await as_owner(
            database_url,
            "workspaces",
            "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)"
            " SELECT $1, 'ws_' || n, $2, 'w-' || n, 'W', 'shared', 1 FROM generate_series(1, $3) AS n",
            tenant.id,
            root.id,
            many,
        )
    workspaces = await parts.sql("SELECT tenant_id, id FROM workspaces")
    roles = await parts.sql("SELECT tenant_id, workspace_id, subject_id FROM memberships")
    for wanted in (None, *(tenant.id for tenant, _ in made)):
        found = await all_of(parts, tuple_sources.workspaces_after, wanted)
        assert sorted((w.tenant_id, w.id) for w in found) == sorted(
            (r["tenant_id"], r["id"]) for r in workspaces if wanted in (None, r["tenant_id"])
        )
        for read, on_workspaces in (
            (tuple_sources.on_tenants_after, False),
            (tuple_sources.on_workspaces_after, True),
        ):
            held = [p.membership for p in await all_of(parts, read, wanted)]
            assert sorted((m.tenant_id, m.workspace_id or "", m.subject.id) for m in held) == sorted(
                (r["tenant_id"], r["workspace_id"] or "", r["subject_id"])
                for r in roles
                if wanted in (None, r["tenant_id"]) and (r["workspace_id"] is not None) == on_workspaces
            )


async def test_every_member_of_every_group_comes_once_or_those_of_one_tenant(parts: Parts, database_url: str) -> None:
    made = [(await parts.tenant())[0] for _ in range(3)]
    for tenant, many in zip(made, (PAGE - 1, PAGE, PAGE + 1), strict=True):
        await add_members(database_url, tenant.id, "grp_1", many)
        await add_members(database_url, tenant.id, "grp_2", PAGE // 2)
        await parts.group(tenant, "nested", await parts.group(tenant, "inner", manager="mia"))
    members = await parts.sql("SELECT tenant_id, group_id, subject_id FROM group_members")
    for wanted in (None, *(tenant.id for tenant in made)):
        found = [each.member for each in await all_of(parts, tuple_sources.group_members_after, wanted)]
        assert sorted((m.tenant_id, m.group_id, m.subject.id) for m in found) == sorted(
            tuple(r) for r in members if wanted in (None, r["tenant_id"])
        )


async def test_a_page_in_the_middle_reads_no_more_than_a_page(parts: Parts, database_url: str) -> None:
    tenant, root = await parts.tenant()
    for place in (root.id, None):
        await add_roles(database_url, tenant.id, place, MANY)
    await as_owner(database_url, "memberships", "ANALYZE memberships, users, workspaces")  # autovacuum would, soon
    after = {"after_tenant": tenant.id, "after_type": "user", "after_subject": "member-110000", "last_tenant": "zzz"}
    for statement, more in (
        (tuple_sources._ON_TENANTS, {}),
        (tuple_sources._ON_WORKSPACES, {"after_workspace": root.id}),
    ):
        assert await rows_read(parts, "memberships", statement, {**after, **more}) <= PAGE + 1
    await add_members(database_url, tenant.id, "grp_1", MANY)
    await as_owner(database_url, "group_members", "ANALYZE group_members")
    in_group = {**after, "after_group": "grp_1"}
    assert await rows_read(parts, "group_members", tuple_sources._GROUP_MEMBERS, in_group) <= PAGE + 1


async def rows_read(parts: Parts, table: str, statement: Statement, parameters: dict[str, object]) -> float:
    """Of the table, as the plan for any parameters does it."""
    async with parts.database.begin(WHY) as tx:
        await tx.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        [[plan]] = await tx.connection.fetch(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.sql}", *statement.arguments(parameters)
        )
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(json.loads(plan)[0]["Plan"])
        if node.get("Relation Name") == table
    )


def nodes(plan: dict) -> Iterator[dict]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
