"""The rules of tenants, and what every mutation has: order, idempotency, etags, audit."""

from __future__ import annotations

import asyncio

import pytest

from pemba.errors import (
    AlreadyExists,
    ConcurrentUpdate,
    Forbidden,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Reason,
)
from pemba.model import Role, TenantId, TenantStatus, UserId, WorkspaceKind


async def create(parts, slug="acme", **options):
    return await parts.tenants.create_tenant(
        parts.system,
        slug=slug,
        name="Acme",
        first_admin=UserId("alice"),
        options=parts.options("CreateTenant", **options),
    )


async def test_k1_a_tenant_comes_with_its_root_workspace_and_first_admin(parts) -> None:
    created = await create(parts)
    assert created.root_workspace.kind is WorkspaceKind.ROOT
    assert created.root_workspace.parent_id is None
    assert await parts.operations(created.tenant) == [["+admin@user:alice", f"+tenant@tenant:{created.tenant.id}"]]
    assert parts.signer.positions(created.token).positions == {created.tenant.id: 1}
    held = await parts.sql("SELECT subject_id, role FROM memberships WHERE tenant_id = $1", created.tenant.id)
    assert [tuple(row) for row in held] == [("alice", "admin")]


async def test_k1_exactly_one_tenant_and_one_root_in_a_race_for_a_slug(parts) -> None:
    outcomes = await asyncio.gather(*(create(parts) for _ in range(8)), return_exceptions=True)
    refused = [o for o in outcomes if isinstance(o, AlreadyExists)]
    assert len(refused) == 7
    assert {o.reason for o in refused} == {Reason.SLUG_TAKEN}
    assert (await parts.sql("SELECT count(*) FROM workspaces WHERE kind = 'root'"))[0][0] == 1
    assert (await parts.sql("SELECT count(*) FROM tenant_head WHERE tenant_id <> '~'"))[0][0] == 1


async def test_creating_with_one_request_id_at_the_same_moment_creates_one_tenant(parts) -> None:
    answers = await asyncio.gather(*(create(parts, request_id="r1", body_digest=b"x") for _ in range(6)))
    assert len({a.tenant.id for a in answers}) == 1
    assert len({a.token for a in answers}) == 1
    assert len({a.root_workspace for a in answers}) == 1


async def test_a_request_id_with_another_body_is_refused(parts) -> None:
    await create(parts, request_id="r1", body_digest=b"x")
    with pytest.raises(InvalidRequest, match="request_id") as refused:
        await create(parts, slug="acme-2", request_id="r1", body_digest=b"y")
    assert refused.value.reason is Reason.REQUEST_ID_REUSED


async def test_validate_only_says_what_would_be_and_writes_nothing(parts) -> None:
    answer = await create(parts, validate_only=True, request_id="r1", body_digest=b"x")
    assert (answer.tenant.slug, answer.token) == ("acme", "")
    for table in ("tenants", "workspaces", "memberships", "outbox", "audit", "idempotency", "users"):
        assert (await parts.sql(f"SELECT count(*) FROM {table}"))[0][0] == 0, table


async def test_a_tenant_is_found_by_id_and_by_slug(parts) -> None:
    tenant = (await create(parts)).tenant
    assert (await parts.tenants.get_tenant(parts.system, tenant_id=tenant.id, slug=None)).record == tenant
    assert (await parts.tenants.get_tenant(parts.system, tenant_id=None, slug="acme")).record == tenant
    with pytest.raises(NotFound, match="tenant globex"):
        await parts.tenants.get_tenant(parts.system, tenant_id=None, slug="globex")


async def test_tenants_are_listed_in_pages_by_slug(parts) -> None:
    for slug in ("ccc", "aaa", "bbb"):
        await create(parts, slug=slug)
    first = await parts.tenants.list_tenants(parts.system, page_size=2, page_token="")
    second = await parts.tenants.list_tenants(parts.system, page_size=2, page_token=first.next_page_token)
    assert [t.slug for t in first.records + second.records] == ["aaa", "bbb", "ccc"]
    assert second.next_page_token == ""


async def test_an_update_compares_the_etag_and_moves_it(parts) -> None:
    tenant = (await create(parts)).tenant
    changed = await parts.tenants.update_tenant(
        parts.system, tenant.id, name="Acme Inc", options=parts.options(etag=tenant.etag)
    )
    assert changed.record.name == "Acme Inc"
    assert changed.record.etag != tenant.etag
    assert changed.token == ""  # nothing that a check could see
    with pytest.raises(ConcurrentUpdate) as refused:
        await parts.tenants.update_tenant(parts.system, tenant.id, name="X", options=parts.options(etag=tenant.etag))
    assert refused.value.reason is Reason.ETAG_MISMATCH
    assert await parts.operations(tenant) == [["+admin@user:alice", f"+tenant@tenant:{tenant.id}"], []]


async def test_a_suspended_tenant_stands_still_until_it_is_active_again(parts) -> None:
    tenant, root = await parts.tenant()
    suspended = await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options())
    assert suspended.record.status is TenantStatus.SUSPENDED
    assert suspended.token
    with pytest.raises(PreconditionFailed) as refused:
        await parts.workspace(root, "eng")
    assert refused.value.reason is Reason.TENANT_SUSPENDED
    active = await parts.tenants.activate_tenant(parts.system, tenant.id, options=parts.options())
    assert active.record.status is TenantStatus.ACTIVE
    await parts.workspace(root, "eng")


async def test_every_change_of_a_status_is_a_row_of_the_global_stream_that_names_it(parts) -> None:
    tenant = (await create(parts)).tenant
    for n, change in enumerate((parts.tenants.suspend_tenant, parts.tenants.activate_tenant), 1):
        changed = await change(parts.system, tenant.id, options=parts.options(request_id=f"r{n}"))
        assert parts.signer.positions(changed.token).positions == {tenant.id: 2 * n, "~": n}
        again = await change(parts.system, tenant.id, options=parts.options(request_id=f"r{n}"))
        assert again.token == changed.token
        unchanged = await change(parts.system, tenant.id, options=parts.options())
        assert unchanged.token == ""
    rows = await parts.sql("SELECT seq, about, op_count FROM outbox WHERE tenant_id = '~' ORDER BY seq")
    assert [tuple(row) for row in rows] == [(1, f"tenant:{tenant.id}", 0), (2, f"tenant:{tenant.id}", 0)]


async def test_a_user_creates_suspends_and_lists_no_tenants_and_sees_their_own(parts) -> None:
    tenant, _ = await parts.tenant()
    with pytest.raises(Forbidden, match="system key"):
        await parts.tenants.suspend_tenant(parts.acting("alice"), tenant.id, options=parts.options())
    with pytest.raises(Forbidden):
        await parts.tenants.list_tenants(parts.acting("alice"), page_size=5, page_token="")
    assert (await parts.tenants.get_tenant(parts.acting("alice"), tenant_id=tenant.id, slug=None)).record == tenant
    with pytest.raises(NotFound):
        await parts.tenants.get_tenant(parts.acting("mallory"), tenant_id=tenant.id, slug=None)


async def test_an_unknown_tenant_is_not_found_and_takes_no_number(parts) -> None:
    unknown = TenantId("ten_01h455vb4pex5vsknk084sn02q")
    with pytest.raises(NotFound):
        await parts.tenants.update_tenant(parts.system, unknown, name="X", options=parts.options())
    assert (await parts.sql("SELECT count(*) FROM outbox"))[0][0] == 0


async def test_a4_every_change_is_audited_with_who_from_where_and_its_operations(parts) -> None:
    tenant, root = await parts.tenant()
    await parts.workspace(root, "eng", caller=parts.acting("alice"))
    rows = await parts.sql("SELECT * FROM audit WHERE tenant_id = $1 ORDER BY seq", tenant.id)
    assert [r["method"] for r in rows] == ["CreateTenant", "CreateWorkspace"]
    created = rows[1]
    assert (created["principal"], created["acting_user"], created["peer"]) == (
        "system_key:test",
        "alice",
        "ipv4:127.0.0.1",
    )
    assert created["request_id"] == "call-1"
    workspace, owner = created["after"]
    assert (workspace["slug"], owner["subject"]["id"], owner["role"]) == ("eng", "alice", "owner")
    outbox = await parts.sql("SELECT ops FROM outbox WHERE tenant_id = $1 AND seq = 2", tenant.id)
    assert created["ops"] == outbox[0]["ops"]


async def test_what_was_refused_is_audited_too_and_takes_no_number(parts) -> None:
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    with pytest.raises(Forbidden):
        await parts.role(tenant, "carol", Role.MEMBER, parts.acting("bob"))
    refused = await parts.sql("SELECT * FROM audit WHERE reason IS NOT NULL")
    assert [(r["method"], r["acting_user"], r["reason"], r["seq"]) for r in refused] == [
        ("SetRole", "bob", "ROLE_MISSING", None)
    ]
    assert len(await parts.operations(tenant)) == 2


async def test_a_refusal_leaves_no_gap_in_the_sequence(parts) -> None:
    tenant, root = await parts.tenant()
    await parts.workspace(root, "eng")
    with pytest.raises(AlreadyExists):
        await parts.workspace(root, "eng")
    await parts.workspace(root, "ops")
    seqs = await parts.sql("SELECT seq FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id)
    assert [r["seq"] for r in seqs] == [1, 2, 3]
    assert (await parts.sql("SELECT head_seq FROM tenant_head WHERE tenant_id = $1", tenant.id))[0][0] == 3
