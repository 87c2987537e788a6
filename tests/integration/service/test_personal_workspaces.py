"""Personal workspaces: whose they are, what they cannot become, and that they go with their users."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pemba.errors import ConcurrentUpdate, Forbidden, InvalidRequest, NotFound, PembaError, PreconditionFailed, Reason
from pemba.model import Permission, Role, TenantId, TenantScope, UserId, Workspace, WorkspaceKind
from pemba.service.mutation import MutationOptions
from pemba.service.personal_workspaces import PersonalWorkspaces
from pemba.service.user_workspace import FirstWorkspace
from pemba.service.workspace_search import Search
from pemba.storage import authority
from tests.integration.conftest import ref


async def ensure(parts, tenant, user="bob", caller=None, service=None, **options) -> tuple[Workspace, bool]:
    changed, created = await (service or parts.workspaces._personal).ensure(
        caller or parts.system, tenant.id, UserId(user), parts.options("EnsurePersonalWorkspace", **options)
    )
    return changed.record, created


async def personal(parts, tenant, user="bob") -> Workspace:
    return (await ensure(parts, tenant, user))[0]


async def create(parts, tenant, user="bob", caller=None, name=""):
    return await parts.workspaces.create_personal_workspace(
        caller or parts.system, tenant.id, user_id=UserId(user), name=name, options=parts.options("CreateWorkspace")
    )


async def update(parts, workspace, caller=None, **changes):
    given = {"name": None, **changes}
    return await parts.workspaces.update_workspace(
        caller or parts.system, workspace.tenant_id, workspace.id, **given, options=parts.options("UpdateWorkspace")
    )


async def on(verb, parts, workspace, caller=None):
    return await getattr(parts.workspaces, f"{verb}_workspace")(
        caller or parts.system, workspace.tenant_id, workspace.id, options=parts.options(verb)
    )


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def held(parts, workspace, user) -> Permission | None:
    async with parts.database.begin(TenantScope(workspace.tenant_id)) as tx:
        return await authority.on_workspace(tx, UserId(user), workspace.id)


# -- whose it is ---------------------------------------------------------------------------------------------


async def test_p1_the_member_of_a_personal_workspace_is_its_user_as_owner_and_nobody_inherits_it(parts) -> None:
    tenant, root = await parts.tenant("alice")
    await parts.role(root, "rob", Role.OWNER)
    mine = await personal(parts, tenant)
    assert (mine.kind, mine.personal_user_id, mine.parent_id) == (WorkspaceKind.PERSONAL, "bob", None)
    assert (mine.creator_id, mine.slug, mine.name) == ("bob", "personal", "bob")
    assert (await parts.operations(tenant))[-1] == ["+owner@user:bob"], "and no place in the tree"
    assert [await held(parts, mine, user) for user in ("bob", "alice", "rob")] == [Permission.OWN, None, None]
    page = await parts.memberships.list_effective_members(
        parts.system,
        tenant.id,
        object=ref(mine),
        permission=Permission.VIEW,
        page_size=9,
        page_token="",
    )
    assert [member.subject.id for member in page.records] == ["bob"]


async def test_p1_nobody_gets_or_loses_a_role_on_it_by_whomever_and_before_any_other_guard(parts) -> None:
    tenant, root = await parts.tenant("alice")
    mine = await personal(parts, tenant)
    other = await parts.workspace(root, "other", owner="bob")
    team = await parts.group(tenant, "a-team", "carol")
    bob = parts.acting("bob")
    before = await parts.sql("SELECT * FROM memberships ORDER BY 1, 2, 3, 4")
    for caller in (parts.system, bob):
        for call in (
            parts.role(mine, "carol", Role.VIEWER, caller),
            parts.role(mine, team, Role.VIEWER, caller),
            parts.role(mine, "bob", Role.ADMIN, caller),
            parts.remove(mine, "bob", caller),  # not LAST_OWNER, not OWN_ROLE
            parts.remove(mine, "bob", caller, transfer_to="carol"),
            parts.remove(mine, "carol", caller, allow_missing=True),
            parts.share(mine, other, caller=caller),
            parts.share(other, mine, caller=caller),
            parts.memberships.transfer_ownership(
                caller,
                tenant.id,
                object=ref(mine),
                from_user=UserId("bob"),
                to_user=UserId("carol"),
                options=parts.options(),
            ),
        ):
            assert await refusal(call) is Reason.PERSONAL_MEMBERSHIP_FIXED
    assert await parts.sql("SELECT * FROM memberships ORDER BY 1, 2, 3, 4") == before
    assert await refusal(parts.role(mine, "carol", Role.VIEWER, parts.acting("alice"))) is Reason.NOT_FOUND
    audited = await parts.sql("SELECT DISTINCT reason FROM audit WHERE reason IS NOT NULL")
    assert {r["reason"] for r in audited} == {"PERSONAL_MEMBERSHIP_FIXED"}


async def test_p2_a_workspace_neither_becomes_nor_stops_being_personal(parts) -> None:
    tenant, root = await parts.tenant()
    mine, other = await personal(parts, tenant), await parts.workspace(root, "other")
    shared = {"name": "Other", "kind": WorkspaceKind.SHARED}
    assert await refusal(update(parts, mine, **shared)) is Reason.PERSONAL_KIND_FROZEN
    assert await refusal(update(parts, other, kind=WorkspaceKind.PERSONAL)) is Reason.PERSONAL_KIND_FROZEN
    assert await refusal(update(parts, other, kind=WorkspaceKind.ROOT)) is Reason.INVALID_FIELD
    assert (await update(parts, other, **shared)).record.name == "Other"
    for call in (
        parts.workspace(mine, "child"),
        parts.workspaces.move_workspace(
            parts.system, tenant.id, mine.id, new_parent_id=root.id, options=parts.options()
        ),
        parts.workspaces.move_workspace(
            parts.system, tenant.id, other.id, new_parent_id=mine.id, options=parts.options()
        ),
    ):
        assert await refusal(call) is Reason.PERSONAL_KIND_FROZEN


async def test_p3_p4_it_stays_with_its_user_and_no_other_kind_has_one(parts) -> None:
    tenant, root = await parts.tenant()
    mine = await personal(parts, tenant)
    for user in ("carol", ""):
        assert await refusal(update(parts, mine, personal_user_id=user)) is Reason.PERSONAL_OWNER_FROZEN
    with pytest.raises(InvalidRequest) as refused:
        await update(parts, root, personal_user_id="bob")
    assert refused.value.reason is Reason.OWNER_ONLY_ON_PERSONAL
    assert (await update(parts, root, personal_user_id="")).record == root


async def test_p5_its_name_stays_editable_and_what_is_said_of_it_may_be_what_it_is(parts) -> None:
    tenant, _ = await parts.tenant()
    mine = await personal(parts, tenant)
    given = {"kind": WorkspaceKind.PERSONAL, "personal_user_id": "bob"}
    changed = await update(parts, mine, parts.acting("bob"), name="My own", **given)
    assert (changed.record.name, changed.token) == ("My own", "")
    assert replace(changed.record, name="bob", etag=mine.etag, update_time=mine.update_time) == mine


async def test_admins_and_keys_of_the_tenant_do_not_see_it_and_its_user_does_what_owners_do(parts) -> None:
    tenant, root = await parts.tenant("alice")
    mine = await personal(parts, tenant)
    confined = replace(parts.system, tenant_id=tenant.id)
    for caller in (parts.acting("alice"), confined, replace(confined, acting_user=UserId("alice"))):
        for call in (
            parts.workspaces.get_workspace(caller, tenant.id, workspace_id=mine.id, path=None),
            update(parts, mine, caller, name="X"),
            on("archive", parts, mine, caller),
            on("delete", parts, mine, caller),
            parts.role(mine, "carol", Role.VIEWER, caller),
            parts.workspace(mine, "child", caller=caller),
        ):
            with pytest.raises(NotFound, match=mine.id):
                await call
    assert (await update(parts, root, confined, name="Root")).record.name == "Root"
    bob = parts.acting("bob")
    await on("archive", parts, mine, bob)
    assert (await parts.operations(tenant))[-1] == ["-owner@user:bob"]
    assert (await ensure(parts, tenant))[0].archive_time is not None
    await on("unarchive", parts, mine, bob)
    assert (await parts.operations(tenant))[-1] == ["+owner@user:bob"]
    await on("delete", parts, mine, bob)
    assert (await parts.operations(tenant))[-1] == ["-owner@user:bob"]
    assert (await parts.sql("SELECT FROM memberships WHERE user_id = 'bob'")) == []


async def test_it_is_found_by_its_user_and_by_system_keys_alone(parts) -> None:
    tenant, root = await parts.tenant("alice")
    mine, other = await personal(parts, tenant), await parts.workspace(root, "other", owner="bob")

    async def listed(caller, user="bob", **given) -> set[str]:
        page = await parts.workspaces.list_workspaces(
            caller,
            tenant.id,
            **{"parent_id": None, "recursive": True, "include_archived": False, **given},
            page_size=9,
            page_token="",
            search=Search(UserId(user), Permission.OWN) if user else Search(),
        )
        return {workspace.id for workspace in page.records}

    assert await listed(parts.system) == await listed(parts.acting("bob")) == {mine.id, other.id}
    assert await listed(parts.system, recursive=False) == await listed(parts.system, parent_id=root.id) == {other.id}
    assert await listed(parts.acting("alice")) == await listed(parts.system, "") == {other.id}
    assert await listed(replace(parts.system, tenant_id=tenant.id)) == {other.id}
    assert await listed(parts.system, "alice") == {other.id}


# -- making one ----------------------------------------------------------------------------------------------


async def test_p7_to_ensure_makes_it_once_with_the_users_record_and_writes_nothing_after_that(parts) -> None:
    tenant, _ = await parts.tenant()
    first, created = await ensure(parts, tenant)
    assert created
    assert (await parts.user("bob")).id == "bob"
    rows = len(await parts.operations(tenant))
    assert await ensure(parts, tenant) == (first, False)
    assert len(await parts.operations(tenant)) == rows
    found, _ = await parts.workspaces.ensure_personal_workspace(
        parts.system, tenant.id, user_id=UserId("bob"), options=parts.options()
    )
    assert parts.signer.positions(found.token).positions == {tenant.id: rows}, "by which a check sees it"
    assert await refusal(create(parts, tenant)) is Reason.PERSONAL_EXISTS
    other, _ = await parts.tenant()
    assert (await personal(parts, other)).id != first.id


async def test_a_request_id_gives_the_same_answer_again(parts) -> None:
    tenant, _ = await parts.tenant()
    made = await ensure(parts, tenant, request_id="r1", body_digest=b"x")
    assert made[1]
    assert await ensure(parts, tenant, request_id="r1", body_digest=b"x") == made
    assert await ensure(parts, tenant, request_id="r2", body_digest=b"x") == (made[0], False)
    dry, created = await ensure(parts, tenant, "carol", validate_only=True)
    assert (created, dry.personal_user_id) == (True, "carol")
    assert await parts.sql("SELECT FROM workspaces WHERE personal_user_id = 'carol'") == []


async def test_users_make_their_own_and_nobody_elses_and_only_where_they_belong(parts) -> None:
    tenant, _ = await parts.tenant("alice")
    alice = parts.acting("alice")
    for made in (True, False):
        assert (await ensure(parts, tenant, "alice", alice))[1] is made
    for caller in (alice, replace(parts.system, tenant_id=tenant.id)):
        for there in (False, True):
            with pytest.raises(Forbidden, match="its user"):
                await ensure(parts, tenant, f"bob-{there}", caller)
            await ensure(parts, tenant, f"bob-{there}")
    with pytest.raises(NotFound, match="tenant"):
        await ensure(parts, tenant, "mallory", parts.acting("mallory"))
    with pytest.raises(NotFound, match="tenant"):
        await ensure(parts, replace(tenant, id=TenantId("ten_01h455vb4pex5vsknk084sn02q")))
    await parts.suspend("bob-True")
    with pytest.raises(NotFound, match="tenant"):
        await ensure(parts, tenant, "bob-True", parts.acting("bob-True"))
    await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options("SuspendTenant"))
    for user in ("alice", "zoe"):
        assert await refusal(ensure(parts, tenant, user)) is Reason.TENANT_SUSPENDED
    await parts.deactivate("bob-True")
    assert await refusal(ensure(parts, (await parts.tenant())[0], "bob-True")) is Reason.USER_DEACTIVATED


async def test_w1_a_user_is_registered_with_their_personal_workspace_as_the_current_one(parts) -> None:
    tenant, _ = await parts.tenant()

    async def register(user: str, name: str = ""):
        changed = await parts.users.create_user(
            parts.system,
            UserId(user),
            email="",
            display_name="Somebody",
            first_workspace=FirstWorkspace(tenant.id, name=name, personal=True),
            options=parts.options("CreateUser"),
        )
        current = await parts.users.get_current_workspace(parts.system, UserId(user), tenant_id=None)
        assert current.record.workspace == changed.record[1]
        return changed.record[1]

    made = await register("bob")
    assert (made.kind, made.personal_user_id, made.name) == (WorkspaceKind.PERSONAL, "bob", "Somebody")
    there = await personal(parts, tenant, "carol")
    assert (await register("carol")).id == there.id
    assert len(await parts.sql("SELECT FROM audit WHERE tenant_id = $1", tenant.id)) == 4


class Interfered(PersonalWorkspaces):
    """Others come between its looking and its making."""

    def __init__(self, parts, times: int, *, delete: bool = True) -> None:
        super().__init__(parts.mutations)
        self.parts, self.times, self.delete, self.looked = parts, times, delete, 0

    async def _find(self, caller, tenant_id, user_id):
        self.looked += 1
        if self.looked > 1 and self.delete:
            there = await super()._find(caller, tenant_id, user_id)
            await on("delete", self.parts, there.record)
        found = await super()._find(caller, tenant_id, user_id)
        if found is None and self.looked <= self.times:
            await PersonalWorkspaces(self.parts.mutations).create(
                self.parts.system, tenant_id, user_id, name="", options=MutationOptions(method="CreateWorkspace")
            )
        return found


@pytest.mark.race
async def test_p7_two_more_attempts_survive_a_workspace_that_comes_and_goes_and_then_they_are_named(parts) -> None:
    tenant, _ = await parts.tenant()
    once = Interfered(parts, 1, delete=False)
    assert not (await ensure(parts, tenant, "ann", service=once))[1]
    assert once.looked == 2
    twice = Interfered(parts, 2)
    assert (await ensure(parts, tenant, "bob", service=twice))[1]
    assert twice.looked == 3
    always = Interfered(parts, 3)
    with pytest.raises(ConcurrentUpdate, match="3 attempts") as gave_up:
        await ensure(parts, tenant, "carol", service=always)
    assert (gave_up.value.reason, gave_up.value.metadata) == (Reason.CONCURRENT_UPDATE, {"attempts": "3"})
    assert always.looked == 3


class Together(PersonalWorkspaces):
    """All look before any of them makes it."""

    def __init__(self, parts, barrier: asyncio.Barrier) -> None:
        super().__init__(parts.mutations)
        self.barrier = barrier

    async def _find(self, caller, tenant_id, user_id):
        found = await super()._find(caller, tenant_id, user_id)
        if found is None:
            await self.barrier.wait()
        return found


@pytest.mark.race
async def test_p7_several_who_ensure_it_at_once_get_one_workspace(parts) -> None:
    tenant, _ = await parts.tenant()
    together = Together(parts, asyncio.Barrier(5))
    answers = await asyncio.gather(*(ensure(parts, tenant, service=together) for _ in range(5)))
    assert len({workspace.id for workspace, _ in answers}) == 1
    assert sorted(created for _, created in answers) == [False] * 4 + [True]
    assert len(await parts.operations(tenant)) == 2


# -- when its user goes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
async def test_who_is_removed_from_the_tenant_has_no_workspace_in_it_any_more(parts, archived) -> None:
    tenant, _ = await parts.tenant("alice")
    await parts.role(tenant, "bob", Role.MEMBER)
    mine = await personal(parts, tenant)
    await parts.users.set_current_workspace(parts.system, UserId("bob"), tenant.id, mine.id, validate_only=False)
    if archived:
        await on("archive", parts, mine, parts.acting("bob"))
    removed = await parts.remove(tenant, "bob", parts.acting("alice"))
    assert removed.record.role is Role.MEMBER
    expected = ["-member@user:bob"] if archived else ["-member@user:bob", "-owner@user:bob"]
    assert sorted((await parts.operations(tenant))[-1]) == expected
    for table in ("workspaces", "memberships"):
        column = "personal_user_id" if table == "workspaces" else "user_id"
        assert await parts.sql(f"SELECT FROM {table} WHERE {column} = 'bob'") == []
    [audited] = await parts.sql("SELECT before FROM audit WHERE method = 'RemoveMember'")
    assert audited["before"][-1]["id"] == mine.id
    with pytest.raises(NotFound):
        await ensure(parts, tenant, "bob", parts.acting("bob"))


async def test_leaving_the_tenant_takes_the_personal_workspace_along_and_no_other_place_does(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "bob", Role.VIEWER)
    mine = await personal(parts, tenant)
    await parts.remove(top, "bob", parts.acting("bob"))
    assert await held(parts, mine, "bob") is Permission.OWN
    await parts.remove(tenant, "bob", parts.acting("bob"), allow_missing=True)
    assert await parts.sql("SELECT FROM workspaces WHERE kind = 'personal'") == []


async def test_a_personal_workspace_never_stands_in_the_way_of_a_status(parts) -> None:
    """More tenants than a change of a status locks for the sake of guards."""
    mine = [await personal(parts, (await parts.tenant("alice"))[0]) for _ in range(18)]
    await parts.suspend("bob")
    await parts.all_jobs()
    assert await held(parts, mine[0], "bob") is None
    await parts.activate("bob")
    await parts.all_jobs()
    assert await held(parts, mine[0], "bob") is Permission.OWN
    await parts.deactivate("bob")
    await parts.all_jobs()
    assert await parts.sql("SELECT FROM workspaces WHERE kind = 'personal'") == []
    assert await parts.sql("SELECT FROM memberships WHERE user_id = 'bob'") == []
    [first, *_] = await parts.sql("SELECT before FROM audit WHERE method = 'DeactivateUser' AND tenant_id <> '~'")
    assert [record.get("personal_user_id") for record in first["before"]] == [None, "bob"]


async def test_an_admin_who_is_the_last_one_is_still_missed(parts) -> None:
    tenant, _ = await parts.tenant("bob")
    await personal(parts, tenant)
    with pytest.raises(PreconditionFailed) as refused:
        await parts.deactivate("bob")
    assert refused.value.reason is Reason.LAST_ADMIN
