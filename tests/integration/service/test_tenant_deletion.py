"""Deleting a tenant: gone for every caller with the one change, and removed children first, whatever comes between."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pemba import projection
from pemba.errors import ConcurrentUpdate, Forbidden, InvalidRequest, NotFound, PembaError, Unavailable
from pemba.model import (
    Operation,
    Role,
    Scope,
    SubjectRef,
    Tenant,
    TenantId,
    TenantScope,
    Tuple,
    UserId,
    UserStatus,
    Workspace,
)
from pemba.service import tenant_deletion as tenant_deletion_module
from pemba.service import wanted
from pemba.service.key_expiry import KeyExpiry
from pemba.service.repair import repair
from pemba.service.user_workspace import FirstWorkspace
from pemba.storage import outbox, tenant_deletions
from pemba.storage.tenant_deletions import KEPT, ORDER
from tests.integration.conftest import Parts, ref
from tests.integration.instruments import Gate, one_behind_the_other
from tests.truth import as_owner, require_no_gap

# Tables with rows of tenants, whatever their columns mean.
OF_TENANTS = """
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = 'public' AND column_name = 'tenant_id' ORDER BY table_name
"""


async def full(parts: Parts) -> tuple[Tenant, Workspace]:
    """A tenant with something of everything: archived, suspended, expired and shared."""
    tenant, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", "olga")
    backend = await parts.workspace(eng, "backend", "olga")
    old = await parts.workspace(eng, "old", "olga")
    for user in ("bob", "carol"):
        await parts.role(eng, user, Role.MEMBER)
    await parts.role(tenant, "bob", Role.MEMBER)
    inner = await parts.group(tenant, "inner", "bob")
    group = await parts.group(tenant, "crew", inner, "carol", manager="bob")
    await parts.role(backend, group, Role.ADMIN)
    await parts.share(backend, old)
    await parts.share(eng, old, seconds=0)
    key = (await parts.key(tenant, Scope.READ, workspace=backend)).changed.record
    await parts.memberships.set_role(
        parts.system,
        tenant.id,
        object=ref(backend),
        subject=SubjectRef("api_key", key.id),
        role=Role.VIEWER,
        options=parts.options("SetRole"),
    )
    await parts.workspaces.archive_workspace(
        parts.system, tenant.id, old.id, options=parts.options("ArchiveWorkspace", request_id="archive")
    )
    await parts.workspaces.create_personal_workspace(
        parts.system, tenant.id, user_id=UserId("bob"), name="", options=parts.options("Personal")
    )
    await parts.users.set_current_workspace(parts.system, UserId("bob"), tenant.id, eng.id, validate_only=False)
    await parts.invitations.create_invitation(
        *(parts.system, tenant.id),
        workspace_id=eng.id,
        email="zoe@acme.test",
        role=Role.MEMBER,
        options=parts.options("CreateInvitation"),
    )
    await parts.sql(
        "INSERT INTO workspace_settings (tenant_id, workspace_id, namespace, name, value, changed_seq)"
        " VALUES ($1, $2, 'mail', 'host', '\"smtp\"', 1) RETURNING name",
        tenant.id,
        eng.id,
    )
    await parts.suspend("carol")
    await parts.all_jobs()
    return tenant, root


async def rows(parts: Parts, tenant: Tenant) -> dict[str, int]:
    """How many rows each table has of the tenant, where it has any."""
    tables = [row["table_name"] for row in await parts.sql(OF_TENANTS)]
    counts = {
        table: (await parts.sql(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant.id))[0][0]
        for table in tables
    }
    counts["tenants"] = (await parts.sql("SELECT count(*) FROM tenants WHERE id = $1", tenant.id))[0][0]
    return {table: count for table, count in counts.items() if count}


async def stands(parts: Parts, tenant: Tenant) -> set[str]:
    """The tuples that a store holds which was given the tenant's whole stream, in order."""
    held: set[str] = set()
    for row in await parts.sql("SELECT ops FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id):
        for each in row["ops"]:
            plain = str(Tuple.parse(each["tuple"]).plain)
            held = held | {plain} if each["op"] == Operation.TOUCH else held - {plain}
    return held


async def test_every_table_with_rows_of_tenants_is_emptied_or_kept_on_purpose(parts) -> None:
    found = {row["table_name"] for row in await parts.sql(OF_TENANTS)}
    assert found == {each.table for each in ORDER} | set(KEPT)
    assert not {each.table for each in ORDER} & set(KEPT)


async def test_whoever_refers_to_a_table_is_emptied_before_it(parts) -> None:
    order = [each.table for each in ORDER] + ["tenants"]
    references = await parts.sql(
        "SELECT conrelid::regclass::text AS child, confrelid::regclass::text AS parent FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid <> confrelid AND confrelid::regclass::text = ANY ($1)",
        order,
    )
    assert references
    for reference in references:
        assert order.index(reference["child"]) < order.index(reference["parent"]), dict(reference)


async def test_k4_nothing_of_it_is_left_and_what_was_done_is(parts, database_url) -> None:
    tenant, _ = await full(parts)
    other, _ = await full(parts)
    before = await rows(parts, other)
    assert set(await rows(parts, tenant)) == {each.table for each in ORDER} | {
        *("tenants", "tenant_head", "outbox", "audit", "audit_mention")
    }
    assert await stands(parts, tenant)
    deleted = await parts.delete(tenant)
    steps = await parts.all_deletions()
    assert set(await rows(parts, tenant)) == {"tenant_head", "outbox", "audit", "audit_mention", "tenant_deletion"}
    assert await stands(parts, tenant) == set()
    await require_no_gap(database_url, tenant.id)
    audited = await parts.sql(
        "SELECT principal, before FROM audit WHERE tenant_id = $1 AND method = 'DeleteTenant' ORDER BY seq", tenant.id
    )
    assert [row["principal"] for row in audited] == [parts.system.principal, *(["pemba:maintenance"] * steps)]
    removed = [next(iter(row["before"])) for row in audited[1:-1]]
    levels = ["workspaces"] * 2  # of the tree: leaves first
    assert removed == [each.table for each in ORDER] + levels
    assert audited[0]["before"]["slug"] == tenant.slug
    assert await rows(parts, other) == before
    for user in ("alice", "bob", "carol", "olga"):
        assert await parts.user(user)
    found = await parts.tenants.get_tenant_deletion(parts.system, tenant_id=tenant.id, slug=None)
    assert found.finish_time is not None
    assert {each.records: each.total for each in found.counts} == {
        each.records: each.total for each in deleted.record.counts
    }
    assert {each.left for each in found.counts} == {0}
    assert not await parts.deletions.run_once()


async def test_steps_are_bounded_and_progress_is_counted(parts, monkeypatch) -> None:
    tenant, root = await parts.tenant()
    for n in range(7):
        await parts.role(root, f"user-{n}", Role.VIEWER)
    monkeypatch.setattr(
        tenant_deletions,
        "_REMOVE",
        {table: shortened(statement) for table, statement in tenant_deletions._REMOVE.items()},
    )
    await parts.delete(tenant)
    assert await parts.deletions.run_once()
    found = await parts.tenants.get_tenant_deletion(parts.system, tenant_id=None, slug=tenant.slug)
    counted = {each.records: (each.total, each.left) for each in found.counts}
    assert (counted["memberships"], counted["workspaces"]) == ((8, 6), (1, 1))
    assert found.finish_time is None
    assert found.undelivered > 0
    await parts.all_deletions()
    rows = await parts.sql("SELECT op_count FROM outbox WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 6", tenant.id)
    assert [row["op_count"] for row in rows] == [0, 1, 2, 2, 2, 2]


def shortened(statement):
    from pemba.storage.statement import Statement

    short = object.__new__(Statement)
    short.sql, short._names = statement.sql.replace("LIMIT 500", "LIMIT 2"), statement._names
    return short


async def test_from_that_moment_on_nobody_sees_anything_of_it(parts) -> None:
    tenant, root = await full(parts)
    bob = parts.acting("bob")
    within = replace(parts.system, tenant_id=tenant.id, principal="api_key:key_x")
    await parts.delete(tenant)
    for caller in (parts.system, parts.acting("alice"), bob, within):
        for ask in (
            lambda c: parts.tenants.get_tenant(c, tenant_id=tenant.id, slug=None),
            lambda c: parts.tenants.get_tenant(c, tenant_id=None, slug=tenant.slug),
            lambda c: parts.workspaces.get_workspace(c, tenant.id, workspace_id=root.id, path=None),
            lambda c: parts.workspaces.archive_workspace(
                c, tenant.id, root.id, options=parts.options("ArchiveWorkspace", request_id="archive")
            ),
            lambda c: parts.role(root, "zoe", Role.MEMBER, c),
            lambda c: parts.tenants.suspend_tenant(c, tenant.id, options=parts.options("SuspendTenant")),
        ):
            with pytest.raises(NotFound):
                await ask(caller)
    listed = await parts.tenants.list_tenants(parts.system, page_size=100, page_token="")
    assert listed.records == ()
    held = await parts.users.list_user_memberships(
        parts.system, UserId("bob"), tenant_id=None, page_size=10, page_token=""
    )
    assert held.records == ()
    for make in (None, tenant.id):
        with pytest.raises(NotFound):
            await parts.users.get_current_workspace(parts.system, UserId("bob"), tenant_id=make)
    async with parts.database.begin(TenantScope(tenant.id)) as tx:
        for table in [each.table for each in ORDER]:
            assert await tx.connection.fetch(f"SELECT FROM {table}") == [], table
        assert await tx.connection.fetch("SELECT FROM tenants") == []


async def test_its_slug_is_free_at_once(parts) -> None:
    tenant, _ = await parts.tenant()
    await parts.delete(tenant)
    created = await parts.tenants.create_tenant(
        parts.system, slug=tenant.slug, name="New", first_admin=UserId("bob"), options=parts.options("CreateTenant")
    )
    await parts.all_deletions()
    found = await parts.tenants.get_tenant(parts.system, tenant_id=None, slug=tenant.slug)
    assert found.record == created.tenant
    again = await parts.delete(created.tenant)
    latest = await parts.tenants.get_tenant_deletion(parts.system, tenant_id=None, slug=tenant.slug)
    assert latest.tenant_id == again.record.tenant_id == created.tenant.id


async def test_it_takes_a_system_key_the_slug_and_the_etag(parts) -> None:
    tenant, _ = await parts.tenant()
    for caller in (parts.acting("alice"), replace(parts.system, tenant_id=tenant.id)):
        with pytest.raises(Forbidden):
            await parts.delete(tenant, caller)
        with pytest.raises(Forbidden):
            await parts.tenants.get_tenant_deletion(caller, tenant_id=tenant.id, slug=None)
    with pytest.raises(InvalidRequest, match="confirm_slug"):
        await parts.delete(tenant, confirm="another")
    with pytest.raises(ConcurrentUpdate):
        await parts.delete(tenant, etag="old")
    await parts.delete(tenant, validate_only=True)
    with pytest.raises(NotFound):
        await parts.tenants.get_tenant_deletion(parts.system, tenant_id=tenant.id, slug=None)
    assert (await parts.tenants.get_tenant(parts.system, tenant_id=tenant.id, slug=None)).record == tenant
    done = await parts.delete(tenant, etag=tenant.etag)
    assert set(parts.signer.positions(done.token).positions) == {"~"}
    with pytest.raises(NotFound):
        await parts.delete(tenant)
    with pytest.raises(NotFound):
        await parts.tenants.delete_tenant(
            parts.system, TenantId("ten_01h455vb4pex5vsknk084sn02q"), confirm_slug="x", options=parts.options()
        )


async def test_one_request_id_is_one_deletion_also_when_it_is_over(parts) -> None:
    tenant, _ = await parts.tenant()
    asked = {"request_id": "r", "body_digest": b"x"}
    first = await parts.delete(tenant, **asked)
    await parts.all_deletions()
    again = await parts.delete(tenant, **asked)
    assert again.replayed
    assert (again.token, again.record) == (first.token, first.record)


async def test_a_suspended_tenant_can_be_deleted(parts) -> None:
    tenant, _ = await parts.tenant()
    suspended = await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options("SuspendTenant"))
    await parts.delete(suspended.record)
    await parts.all_deletions()
    assert await stands(parts, tenant) == set()


async def test_its_admins_may_be_deactivated_at_once(parts) -> None:
    """Nobody is the last admin of what is not there, and both jobs come to their ends."""
    tenant, _ = await full(parts)
    await parts.delete(tenant)
    await parts.deactivate("alice")
    await parts.deactivate("olga")
    while await parts.jobs.run_once() | await parts.deletions.run_once():
        pass
    assert (await parts.user("alice")).status is UserStatus.DEACTIVATED
    assert await stands(parts, tenant) == set()


@pytest.mark.parametrize("meanwhile", ["before", "between"])
async def test_a_user_who_is_activated_meanwhile_gets_nothing_back_there(parts, meanwhile) -> None:
    tenant, _ = await full(parts)
    await parts.delete(tenant)
    if meanwhile == "between":
        await parts.deletions.run_once()
        await parts.deletions.run_once()
    await parts.activate("carol")
    await parts.all_jobs()
    await parts.all_deletions()
    assert await stands(parts, tenant) == set()
    assert set(await rows(parts, tenant)) == {"tenant_head", "outbox", "audit", "audit_mention", "tenant_deletion"}


async def test_a_repair_meanwhile_brings_nothing_back(parts) -> None:
    """As after the loss of SpiceDB's data: what a record stands for is on no way there any more."""
    tenant, _ = await full(parts)
    everything = {each async for page in wanted.pages(parts.database, tenant.id) for each in page}
    assert everything
    await parts.delete(tenant)
    await repair(parts.database, parts.mutations.wakeup, parts.system, tenant.id, sorted(everything, key=str))
    assert await stands(parts, tenant) == set()
    await parts.all_deletions()
    await repair(parts.database, parts.mutations.wakeup, parts.system, tenant.id, sorted(everything, key=str))
    assert await stands(parts, tenant) == set()
    assert {projection.owner_of(each) for each in everything} == {tenant.id}


async def test_what_is_due_in_it_holds_up_no_sweeper(parts, database_url) -> None:
    tenant, _ = await full(parts)
    await parts.sql("UPDATE api_keys SET expire_time = now() WHERE tenant_id = $1 RETURNING id", tenant.id)
    due = "UPDATE shares SET expire_time = date_trunc('second', now())"
    await as_owner(database_url, "shares", due)
    await parts.delete(tenant)
    keys = KeyExpiry(parts.database, parts.mutations.wakeup)
    assert (await parts.expiry.run_once(), await keys.run_once()) == (0, 0)
    assert await parts.expiry.seconds_left() > 1
    assert await keys.seconds_left() > 1


async def test_its_keys_are_forgotten_by_every_server(parts) -> None:
    tenant, _ = await parts.tenant()
    key = (await parts.key(tenant)).changed.record
    await parts.delete(tenant)
    await parts.all_deletions()
    about = [row["about"] for row in await parts.sql("SELECT about FROM outbox WHERE tenant_id = '~' ORDER BY seq")]
    assert about[-2:] == [f"tenant:{tenant.id}", f"api_key:{key.id}"]


async def test_a_new_user_is_not_made_a_workspace_there(parts) -> None:
    tenant, _ = await parts.tenant()
    await parts.delete(tenant)
    with pytest.raises(NotFound):
        await parts.users.create_user(
            parts.system,
            UserId("zoe"),
            email="",
            display_name="",
            options=parts.options("CreateUser"),
            first_workspace=FirstWorkspace(tenant.id),
        )


async def test_a_step_that_fails_lets_the_others_go_first(parts, monkeypatch) -> None:
    stuck, _ = await parts.tenant()
    other, _ = await parts.tenant()
    await parts.delete(stuck)
    await parts.delete(other)
    remove = tenant_deletions.remove_some

    async def failing(tx, tenant_id):
        if tenant_id == stuck.id:
            raise Unavailable("OVERLOADED", "stuck")
        return await remove(tx, tenant_id)

    monkeypatch.setattr(tenant_deletion_module.tenant_deletions, "remove_some", failing)
    for _ in range(30):
        try:
            await parts.deletions.run_once()
        except PembaError:
            continue
    assert "tenants" not in await rows(parts, other)
    assert "tenants" in await rows(parts, stuck)


@pytest.mark.race
async def test_a_change_that_waits_for_the_deletion_finds_no_tenant(parts, monkeypatch) -> None:
    tenant, root = await parts.tenant()
    gate = Gate(monkeypatch, tenant_deletions, "begin")
    deleted, granted = await one_behind_the_other(
        parts, gate, parts.delete(tenant), lambda: parts.role(root, "bob", Role.MEMBER)
    )
    assert deleted.record.tenant_id == tenant.id
    assert isinstance(granted, NotFound)
    await parts.all_deletions()
    assert await stands(parts, tenant) == set()


@pytest.mark.race
async def test_a_deletion_that_waits_for_a_change_takes_it_along(parts, monkeypatch) -> None:
    tenant, root = await parts.tenant()
    gate = Gate(monkeypatch, outbox, "advance")
    granted, deleted = await one_behind_the_other(
        parts, gate, parts.role(root, "bob", Role.MEMBER), lambda: parts.delete(tenant)
    )
    assert granted.record.subject == SubjectRef("user", "bob")
    assert {each.records: each.total for each in deleted.record.counts}["memberships"] == 2
    await parts.all_deletions()
    assert await stands(parts, tenant) == set()


@pytest.mark.race
async def test_several_relays_leave_each_other_alone(parts, database_url) -> None:
    tenants = [(await full(parts))[0] for _ in range(2)]
    for tenant in tenants:
        await parts.delete(tenant)

    async def relay() -> None:
        while await parts.sql("SELECT FROM tenant_deletion WHERE finish_time IS NULL"):
            await parts.deletions.run_once()

    await asyncio.gather(*(relay() for _ in range(4)))
    for tenant in tenants:
        assert await stands(parts, tenant) == set()
        await require_no_gap(database_url, tenant.id)
        steps = await parts.sql(
            "SELECT FROM audit WHERE tenant_id = $1 AND principal = 'pemba:maintenance' AND method = 'DeleteTenant'",
            tenant.id,
        )
        assert len(steps) == len(ORDER) + 2 + 1  # the levels of the tree, and the tenant itself
