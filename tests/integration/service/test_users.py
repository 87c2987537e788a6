"""The rules of users' records: created, changed, found and listed, with their workspaces and their roles."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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
from pemba.model import Role, TenantId, UserId, UserStatus
from pemba.service.user_workspace import FirstWorkspace
from pemba.service.users import UserSearch


async def create(parts, user="alice", email="", display_name="", workspace=None, caller=None, **options):
    return await parts.users.create_user(
        caller or parts.system,
        UserId(user),
        email=email,
        display_name=display_name,
        first_workspace=workspace,
        options=parts.options("CreateUser", **options),
    )


async def update(parts, user="alice", email=None, display_name=None, caller=None, **options):
    return await parts.users.update_user(
        caller or parts.system,
        UserId(user),
        email=email,
        display_name=display_name,
        options=parts.options("UpdateUser", **options),
    )


async def listed(parts, **search) -> list[str]:
    """Every user, in pages of two."""
    found, token = [], ""
    while True:
        page = await parts.users.list_users(parts.system, search=UserSearch(**search), page_size=2, page_token=token)
        found += [user.id for user in page.records]
        token = page.next_page_token
        if not token:
            return found


async def current(parts, user="alice", tenant=None):
    found = await parts.users.get_current_workspace(parts.system, UserId(user), tenant_id=tenant and tenant.id)
    return found.record


async def choose(parts, workspace, user="alice", caller=None, *, validate_only=False):
    return await parts.users.set_current_workspace(
        caller or parts.system, UserId(user), workspace.tenant_id, workspace.id, validate_only=validate_only
    )


# -- records -------------------------------------------------------------------------------------------------


async def test_i1_a_user_is_created_found_and_changed_each_with_an_audited_row_of_the_global_stream(parts) -> None:
    created = (await create(parts, email="Alice@Acme.test", display_name="Alice")).record[0]
    assert (created.email, created.display_name, created.status) == ("Alice@Acme.test", "Alice", UserStatus.ACTIVE)
    assert await parts.user("alice") == created
    changed = await update(parts, display_name="Alice A.", etag=created.etag)
    assert (changed.record.email, changed.record.display_name) == ("Alice@Acme.test", "Alice A.")
    assert changed.record.etag != created.etag
    assert changed.token == "", "nothing that a check could see"
    rows = await parts.sql("SELECT seq, about, op_count FROM outbox WHERE tenant_id = '~' ORDER BY seq")
    assert [tuple(r) for r in rows] == [(1, "user:alice", 0), (2, "user:alice", 0)]
    audit = await parts.sql("SELECT * FROM audit WHERE tenant_id = '~' ORDER BY seq")
    assert [(r["seq"], r["method"], r["object"], r["principal"]) for r in audit] == [
        (1, "CreateUser", "user:alice", "system_key:test"),
        (2, "UpdateUser", "user:alice", "system_key:test"),
    ]
    assert (audit[1]["before"]["display_name"], audit[1]["after"]["display_name"]) == ("Alice", "Alice A.")


async def test_what_changes_nothing_is_no_row(parts) -> None:
    user = (await create(parts, display_name="Alice")).record[0]
    assert (await update(parts, display_name="Alice")).record == user
    assert len(await parts.sql("SELECT FROM outbox")) == 1


async def test_a_user_is_created_once(parts) -> None:
    await create(parts)
    with pytest.raises(AlreadyExists) as refused:
        await create(parts)
    assert refused.value.reason is Reason.USER_EXISTS


async def test_a_record_that_a_role_made_is_taken_over_once(parts) -> None:
    _, root = await parts.tenant()
    await parts.role(root, "bob", Role.VIEWER)
    made = await parts.user("bob")
    created = (await create(parts, "bob", "bob@acme.test", "Bob")).record[0]
    assert (created.email, created.create_time) == ("bob@acme.test", made.create_time)
    with pytest.raises(AlreadyExists):
        await create(parts, "bob")


async def test_i1_emails_are_unique_whatever_their_case_and_in_a_race(parts) -> None:
    outcomes = await asyncio.gather(
        *(create(parts, f"user-{n}", "alice@acme.test" if n % 2 else "Alice@ACME.test") for n in range(6)),
        return_exceptions=True,
    )
    refused = [o.reason for o in outcomes if isinstance(o, AlreadyExists)]
    assert refused == [Reason.EMAIL_TAKEN] * 5
    await create(parts, "zoe", "zoe@acme.test")
    with pytest.raises(AlreadyExists) as taken:
        await update(parts, "zoe", email="ALICE@acme.test")
    assert taken.value.reason is Reason.EMAIL_TAKEN
    await create(parts, "nobody")
    await create(parts, "no-one")  # without an email: any number of them
    assert (await update(parts, "zoe", email="")).record.email == ""


async def test_creating_with_one_request_id_at_the_same_moment_creates_one_user(parts) -> None:
    tenant, _ = await parts.tenant()
    wanted = FirstWorkspace(tenant.id)
    answers = await asyncio.gather(
        *(create(parts, "bob", workspace=wanted, request_id="r1", body_digest=b"x") for _ in range(5))
    )
    assert len({a.record for a in answers}) == len({a.token for a in answers}) == 1
    assert sorted(a.replayed for a in answers) == [False] + [True] * 4
    with pytest.raises(InvalidRequest) as reused:
        await create(parts, "bob", request_id="r1", body_digest=b"y")
    assert reused.value.reason is Reason.REQUEST_ID_REUSED


async def test_validate_only_says_what_would_be_and_writes_nothing(parts) -> None:
    tenant, _ = await parts.tenant()
    answer = await create(parts, "bob", workspace=FirstWorkspace(tenant.id), validate_only=True, request_id="r1")
    assert (answer.record[0].id, answer.record[1].slug, answer.token) == ("bob", "bob", "")
    with pytest.raises(NotFound):
        await parts.user("bob")
    assert len(await parts.operations(tenant)) == 1
    for table in ("idempotency", "user_current_workspace"):
        assert await parts.sql(f"SELECT FROM {table}") == []


async def test_an_update_compares_the_etag(parts) -> None:
    user = (await create(parts)).record[0]
    await update(parts, display_name="A", etag=user.etag)
    with pytest.raises(ConcurrentUpdate) as refused:
        await update(parts, display_name="B", etag=user.etag)
    assert refused.value.reason is Reason.ETAG_MISMATCH


async def test_users_see_and_name_themselves_and_nobody_else(parts) -> None:
    await create(parts, email="alice@acme.test")
    await create(parts, "bob")
    alice = parts.acting("alice")
    assert (await parts.users.get_user(alice, UserId("alice"))).record.id == "alice"
    assert (await update(parts, display_name="Al", caller=alice)).record.display_name == "Al"
    with pytest.raises(Forbidden, match="email"):
        await update(parts, email="other@acme.test", caller=alice)
    for hidden in ("bob", "carol"):
        with pytest.raises(NotFound, match=f"user {hidden}"):
            await parts.users.get_user(alice, UserId(hidden))
        with pytest.raises(NotFound):
            await update(parts, hidden, display_name="X", caller=alice)
    with pytest.raises(NotFound, match="user alice"):
        await parts.users.list_user_memberships(
            parts.acting("bob"), UserId("alice"), tenant_id=None, page_size=9, page_token=""
        )
    for refused in (
        create(parts, "zoe", caller=alice),
        parts.users.list_users(alice, search=UserSearch(), page_size=9, page_token=""),
        parts.users.suspend_user(alice, UserId("alice"), force=False, options=parts.options()),
        parts.users.activate_user(alice, UserId("alice"), options=parts.options()),
        parts.users.deactivate_user(alice, UserId("alice"), options=parts.options()),
    ):
        with pytest.raises(Forbidden, match="system key"):
            await refused
    audited = await parts.sql("SELECT method, acting_user FROM audit WHERE tenant_id = '~' AND reason = 'ROLE_MISSING'")
    assert {tuple(row) for row in audited} >= {("CreateUser", "alice"), ("UpdateUser", "alice")}


async def test_a_key_that_is_confined_to_a_tenant_sees_no_user_and_is_told_of_that_tenant_alone(parts) -> None:
    acme, _ = await parts.tenant()
    other, _ = await parts.tenant()
    confined = replace(parts.system, tenant_id=acme.id)
    with pytest.raises(NotFound):
        await parts.users.get_user(confined, UserId("alice"))
    acting = replace(confined, acting_user=UserId("alice"))
    page = await parts.users.list_user_memberships(
        acting, UserId("alice"), tenant_id=other.id, page_size=9, page_token=""
    )
    assert {m.tenant_id for m in page.records} == {acme.id}


async def test_who_is_suspended_does_not_change_themselves(parts) -> None:
    await create(parts)
    await parts.suspend("alice")
    with pytest.raises(PreconditionFailed) as refused:
        await update(parts, display_name="Al", caller=parts.acting("alice"))
    assert refused.value.reason is Reason.USER_SUSPENDED
    [row] = await parts.sql("SELECT method, object, seq FROM audit WHERE reason = 'USER_SUSPENDED'")
    assert tuple(row) == ("UpdateUser", "user:alice", None)
    assert (await update(parts, display_name="Al")).record.display_name == "Al"


async def test_i1_the_last_login_is_recorded_to_the_minute_without_an_event(parts) -> None:
    user = (await create(parts)).record[0]
    assert user.last_login_time is None
    await parts.users.record_login(parts.system, UserId("alice"), validate_only=True)
    assert (await parts.user("alice")).last_login_time is None
    first = (await parts.users.record_login(parts.acting("alice"), UserId("alice"), validate_only=False)).record
    assert first.last_login_time is not None
    assert (first.etag, first.update_time) == (user.etag, user.update_time)
    again = await parts.users.record_login(parts.system, UserId("alice"), validate_only=False)
    assert again.record == first, "within a minute: one write"
    await parts.sql("UPDATE users SET last_login_time = last_login_time - interval '61 s'")
    later = await parts.users.record_login(parts.system, UserId("alice"), validate_only=False)
    assert later.record.last_login_time > first.last_login_time
    assert len(await parts.sql("SELECT FROM outbox")) == 1
    await parts.suspend("alice")
    with pytest.raises(PreconditionFailed):
        await parts.users.record_login(parts.system, UserId("alice"), validate_only=False)


# -- lists ---------------------------------------------------------------------------------------------------


async def test_users_are_listed_in_each_order_both_ways(parts) -> None:
    for user, email in (("c", "b@x.y"), ("a", "C@x.y"), ("d", ""), ("b", "a@x.y"), ("e", "")):
        await create(parts, user, email)
    assert await listed(parts) == ["a", "b", "c", "d", "e"]
    assert await listed(parts, descending=True) == ["e", "d", "c", "b", "a"]
    assert await listed(parts, order="email") == ["d", "e", "b", "c", "a"]
    assert await listed(parts, order="email", descending=True) == ["a", "c", "b", "e", "d"]
    assert await listed(parts, order="create_time") == ["c", "a", "d", "b", "e"]
    assert await listed(parts, order="create_time", descending=True) == ["e", "b", "d", "a", "c"]


async def test_users_are_searched_by_status_and_by_the_beginning_of_email_and_name(parts) -> None:
    await create(parts, "a", "ann@acme.test", "Ann Smith")
    await create(parts, "b", "Anna@acme.test", "ann jones")
    await create(parts, "c", "bob@acme.test", "100% _bob")
    await parts.suspend("b")
    assert await listed(parts, email_begins="ANN") == ["a", "b"]
    assert await listed(parts, email="ANN@acme.test") == ["a"]
    assert await listed(parts, name_begins="ann ") == ["a", "b"]
    assert await listed(parts, name="Ann Smith") == ["a"]
    assert await listed(parts, name_begins="100% _") == ["c"]
    assert await listed(parts, name_begins="1_0") == []
    assert await listed(parts, status=UserStatus.SUSPENDED) == ["b"]
    assert await listed(parts, status=UserStatus.ACTIVE, email_begins="an") == ["a"]


async def test_a_page_token_is_for_the_same_search(parts) -> None:
    for user in "abc":
        await create(parts, user)
    page = await parts.users.list_users(parts.system, search=UserSearch(), page_size=1, page_token="")
    with pytest.raises(InvalidRequest, match="page_token"):
        await parts.users.list_users(
            parts.system, search=UserSearch(order="email"), page_size=1, page_token=page.next_page_token
        )


async def test_each_order_and_each_beginning_of_a_list_of_users_is_read_from_an_index(parts) -> None:
    await parts.sql(
        "INSERT INTO users (id, email, display_name) SELECT 'user-' || n, n || '@acme.test', 'name ' || n"
        " FROM generate_series(1, 20000) n"
    )
    from pemba.storage import user_search

    async def plan(order: str, **given: object) -> str:
        statement = user_search._SEARCH[order, False]
        nothing = dict.fromkeys(("status", "email", "email_begins", "name", "name_begins", "after_key", "after_id"))
        arguments = statement.arguments({**nothing, "limit": 101, **given})
        return "\n".join(row[0] for row in await parts.sql(f"EXPLAIN {statement.sql}", *arguments))

    assert "users_pkey" in await plan("id", after_key="user-5", after_id="user-5")
    assert "users_email_idx" in await plan("email", after_key="5@acme.test", after_id="user-5")
    assert "users_create_time_idx" in await plan("create_time", after_key="2026-01-01 00:00:00+00", after_id="a")
    assert "users_email_idx" in await plan("email", email_begins="1234")
    assert "users_email_idx" in await plan("id", email="1234@acme.test")
    assert "users_display_name_idx" in await plan("id", name_begins="name 1234")


async def test_i1_the_roles_of_a_user_are_listed_in_pages_of_one_tenant_and_of_all(parts) -> None:
    acme, root = await parts.tenant()
    other, _ = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="alice")
    token, found = "", []
    while True:
        page = await parts.users.list_user_memberships(
            parts.acting("alice"), UserId("alice"), tenant_id=None, page_size=1, page_token=token
        )
        found += page.records
        token = page.next_page_token
        if not token:
            break
    of_acme = [(acme.id, None, Role.ADMIN), (acme.id, eng.id, Role.OWNER)]
    assert [(m.tenant_id, m.workspace_id, m.role) for m in found] == [*of_acme, (other.id, None, Role.ADMIN)]
    one = await parts.users.list_user_memberships(
        parts.system, UserId("alice"), tenant_id=acme.id, page_size=9, page_token=""
    )
    assert [(m.tenant_id, m.workspace_id, m.role) for m in one.records] == of_acme
    assert parts.signer.positions(one.token).positions == {acme.id: 2}


# -- the first workspace, and the current one -----------------------------------------------------------------


async def test_w1_a_registration_makes_user_workspace_owner_and_current_workspace_in_one_transaction(parts) -> None:
    tenant, root = await parts.tenant()
    changed = await create(parts, "bob", "bob@acme.test", "Bob Smith", FirstWorkspace(tenant.id))
    user, workspace = changed.record
    assert (workspace.parent_id, workspace.slug, workspace.name) == (root.id, "bob-smith", "Bob Smith")
    assert workspace.creator_id == user.id == "bob"
    assert parts.signer.positions(changed.token).positions == {tenant.id: 2}
    assert (await parts.operations(tenant))[1] == ["+owner@user:bob", f"+parent@workspace:{root.id}"]
    assert await current(parts, "bob") == replace(await current(parts, "bob"), workspace=workspace, chosen=True)
    audit = await parts.sql("SELECT tenant_id, method, object FROM audit WHERE method = 'CreateUser' ORDER BY object")
    assert [tuple(r) for r in audit] == [
        ("~", "CreateUser", "user:bob"),
        (tenant.id, "CreateUser", f"workspace:{workspace.id}"),
    ]


async def test_w1_what_refuses_a_part_of_a_registration_refuses_all_of_it(parts) -> None:
    tenant, root = await parts.tenant()
    await parts.workspace(root, "taken")
    await create(parts, "zoe", "zoe@acme.test")
    unknown = TenantId("ten_01h455vb4pex5vsknk084sn02q")
    for refusal, given in (
        (AlreadyExists, {"email": "zoe@acme.test", "workspace": FirstWorkspace(tenant.id)}),
        (AlreadyExists, {"workspace": FirstWorkspace(tenant.id, "taken")}),
        (NotFound, {"workspace": FirstWorkspace(unknown)}),
    ):
        with pytest.raises(refusal):
            await create(parts, "bob", **given)
    await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options())
    with pytest.raises(PreconditionFailed) as refused:
        await create(parts, "bob", workspace=FirstWorkspace(tenant.id))
    assert refused.value.reason is Reason.TENANT_SUSPENDED
    with pytest.raises(NotFound):
        await parts.user("bob")
    assert len(await parts.operations(tenant)) == 3, "no number was taken"


@pytest.mark.parametrize(
    ("user", "name", "stem"),
    [("bob", "", "bob"), ("bob", "taken", "taken-"), ("bob", "Admin", "admin-"), ("用户", "", ""), ("b", "", "b-")],
)
async def test_w1_a_first_workspace_has_a_slug_whatever_the_user_is_called(parts, user, name, stem) -> None:
    tenant, root = await parts.tenant()
    await parts.workspace(root, "taken")
    _, workspace = (await create(parts, user, "", name, FirstWorkspace(tenant.id))).record
    assert workspace.slug.startswith(stem)
    assert (workspace.slug == stem) is (stem == "bob")


async def test_w2_the_current_workspace_is_the_one_chosen_last_and_one_of_each_tenant(parts) -> None:
    acme, root = await parts.tenant()
    other, other_root = await parts.tenant()
    eng = await parts.workspace(root, "eng")
    assert not (await current(parts)).chosen
    await choose(parts, eng, caller=parts.acting("alice"))
    await choose(parts, other_root)
    await choose(parts, root, validate_only=True)
    assert (await current(parts)).workspace == other_root
    assert (await current(parts, tenant=acme)).workspace == eng
    await choose(parts, root)
    assert (await current(parts)).workspace == root
    assert (await current(parts, tenant=other)).chosen


async def test_w2_only_what_the_user_may_view_can_be_chosen(parts) -> None:
    _, root = await parts.tenant()
    eng = await parts.workspace(root, "eng", owner="bob")
    ops = await parts.workspace(root, "ops")
    with pytest.raises(NotFound, match=ops.id):
        await choose(parts, ops, "bob")
    with pytest.raises(NotFound, match="user bob"):
        await choose(parts, eng, "bob", parts.acting("alice"))
    await parts.workspaces.archive_workspace(parts.system, root.tenant_id, eng.id, options=parts.options())
    with pytest.raises(PreconditionFailed) as refused:
        await choose(parts, eng, "bob")
    assert refused.value.reason is Reason.WORKSPACE_ARCHIVED


async def test_w2_the_default_is_the_first_role_on_a_workspace_then_the_first_root_administered(parts) -> None:
    acme, root = await parts.tenant("zoe")
    other, _ = await parts.tenant("zoe")
    with pytest.raises(NotFound):
        await current(parts, "bob")
    await parts.role(acme, "bob", Role.MEMBER)
    with pytest.raises(NotFound, match="user:bob"):
        await current(parts, "bob")
    await parts.role(other, "bob", Role.ADMIN)
    assert (await current(parts, "bob")).workspace.kind == "root"
    first, second = await parts.workspace(root, "first"), await parts.workspace(root, "second")
    await parts.role(second, "bob", Role.VIEWER)
    await parts.role(first, "bob", Role.OWNER)
    assert await current(parts, "bob") == replace(await current(parts, "bob"), workspace=second, chosen=False)
    assert (await current(parts, "bob", other)).workspace.tenant_id == other.id


async def test_w2_a_choice_that_is_gone_archived_or_out_of_sight_falls_back_to_the_default(parts) -> None:
    acme, root = await parts.tenant("zoe")
    first, second = await parts.workspace(root, "first", owner="bob"), await parts.workspace(root, "second")
    await parts.role(second, "bob", Role.VIEWER)
    await choose(parts, second, "bob")
    assert (await current(parts, "bob")).chosen

    await parts.workspaces.archive_workspace(parts.system, acme.id, second.id, options=parts.options())
    assert (await current(parts, "bob")).workspace == first
    await parts.workspaces.unarchive_workspace(parts.system, acme.id, second.id, options=parts.options())
    assert (await current(parts, "bob")).chosen

    await parts.remove(second, "bob")
    assert (await current(parts, "bob")).workspace == first
    await parts.role(second, "bob", Role.VIEWER)
    assert (await current(parts, "bob")).chosen

    await parts.tenants.suspend_tenant(parts.system, acme.id, options=parts.options())
    with pytest.raises(NotFound):
        await current(parts, "bob")
    await parts.tenants.activate_tenant(parts.system, acme.id, options=parts.options())

    await parts.workspaces.delete_workspace(parts.system, acme.id, second.id, options=parts.options())
    assert (await current(parts, "bob")).workspace == first
    await parts.suspend("bob")
    with pytest.raises(NotFound):
        await current(parts, "bob")
