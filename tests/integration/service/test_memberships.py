"""The rules of memberships, and the guards that no right overrides."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pemba.errors import Forbidden, InvalidRequest, NotFound, PembaError, Reason
from pemba.model import ObjectRef, Role, SubjectRef, UserId
from pemba.service.role_change import RoleAssignment
from tests.integration.instruments import counted_statements


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def suspend(parts, user: str) -> None:
    await parts.sql("UPDATE users SET status = 'suspended', suspend_time = now() WHERE id = $1", user)


async def transfer(parts, workspace, from_user: str, to_user: str, caller=None):
    return await parts.memberships.transfer_ownership(
        caller or parts.system,
        workspace.tenant_id,
        object=ObjectRef("workspace", workspace.id),
        from_user=UserId(from_user),
        to_user=UserId(to_user),
        options=parts.options("TransferOwnership"),
    )


async def test_i4_a_changed_role_keeps_its_join_time_and_who_invited(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top")
    first = (await parts.role(top, "bob", Role.VIEWER, parts.acting("alice"))).record
    second = (await parts.role(top, "bob", Role.ADMIN)).record
    assert (second.role, second.join_time, second.invited_by) == (Role.ADMIN, first.join_time, "alice")
    assert second.etag != first.etag
    assert (await parts.operations(tenant))[-1] == ["-viewer@user:bob", "+admin@user:bob"]


async def test_the_same_role_again_changes_nothing(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    first = await parts.role(top, "bob", Role.VIEWER)
    again = await parts.role(top, "bob", Role.VIEWER)
    assert (again.record, again.token) == (first.record, "")
    assert (await parts.operations(tenant))[-1] == []


async def test_a_role_of_a_user_who_is_not_active_projects_nothing(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    await parts.role(top, "bob", Role.VIEWER)
    await suspend(parts, "bob")
    await parts.role(top, "bob", Role.ADMIN)
    assert (await parts.operations(tenant))[-1] == ["-viewer@user:bob"]


async def test_i3_the_last_owner_is_neither_removed_nor_demoted_and_only_active_ones_count(parts) -> None:
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top", owner="olga")
    assert await refusal(parts.remove(top, "olga")) is Reason.LAST_OWNER
    assert await refusal(parts.role(top, "olga", Role.ADMIN)) is Reason.LAST_OWNER
    await parts.role(top, "oscar", Role.OWNER)
    await suspend(parts, "oscar")
    assert await refusal(parts.remove(top, "olga")) is Reason.LAST_OWNER
    await parts.remove(top, "oscar")  # takes no active owner away
    await parts.role(top, "otto", Role.OWNER)
    await parts.remove(top, "olga")


async def test_i3_the_last_admin_of_a_tenant_stays(parts) -> None:
    tenant, _ = await parts.tenant("alice")
    assert await refusal(parts.remove(tenant, "alice")) is Reason.LAST_ADMIN
    assert await refusal(parts.role(tenant, "alice", Role.MEMBER)) is Reason.LAST_ADMIN
    await parts.role(tenant, "bob", Role.ADMIN)
    await parts.remove(tenant, "alice")


async def test_removing_from_the_tenant_takes_every_direct_role_and_a_transfer_resolves_the_last_owner(parts) -> None:
    tenant, root = await parts.tenant("alice")
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.workspace(root, "top", owner="bob")
    low = await parts.workspace(root, "low", owner="carol")
    await parts.role(low, "bob", Role.VIEWER)
    before = len(await parts.operations(tenant))
    assert await refusal(parts.remove(tenant, "bob")) is Reason.LAST_OWNER
    assert len(await parts.operations(tenant)) == before
    removed = await parts.remove(tenant, "bob", transfer_to="dave")
    assert removed.record.role is Role.MEMBER
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        ["-member@user:bob", "-owner@user:bob", "-viewer@user:bob", "+owner@user:dave"]
    )
    assert await parts.sql("SELECT * FROM memberships WHERE subject_id = 'bob'") == []


async def test_removing_from_the_tenant_transfers_what_is_archived_too(parts) -> None:
    tenant, root = await parts.tenant("alice")
    await parts.role(tenant, "bob", Role.MEMBER)
    top = await parts.workspace(root, "top", owner="bob")
    await parts.workspaces.archive_workspace(parts.system, tenant.id, top.id, options=parts.options())
    await parts.remove(tenant, "bob", parts.acting("alice"), transfer_to="dave")
    held = await parts.sql("SELECT subject_id, role FROM memberships WHERE workspace_id = $1", top.id)
    assert [tuple(row) for row in held] == [("dave", "owner")]
    assert (await parts.operations(tenant))[-1] == ["-member@user:bob"]


async def test_a_transfer_goes_to_an_active_user_who_is_another(parts) -> None:
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top", owner="olga")
    with pytest.raises(InvalidRequest, match="transfer_to"):
        await parts.remove(top, "olga", transfer_to="olga")
    await parts.role(top, "sue", Role.VIEWER)
    await suspend(parts, "sue")
    assert await refusal(parts.remove(top, "olga", transfer_to="sue")) is Reason.USER_SUSPENDED


async def test_i4_only_who_holds_own_makes_and_unmakes_owners(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "adam", Role.ADMIN)
    await parts.role(top, "otto", Role.OWNER)
    adam = parts.acting("adam")
    assert await refusal(parts.role(top, "bob", Role.OWNER, adam)) is Reason.ONLY_OWNER_MAKES_OWNERS
    assert await refusal(parts.role(top, "otto", Role.VIEWER, adam)) is Reason.ONLY_OWNER_MAKES_OWNERS
    assert await refusal(parts.remove(top, "otto", adam)) is Reason.ONLY_OWNER_MAKES_OWNERS
    await parts.role(top, "bob", Role.ADMIN, adam)
    await parts.role(top, "bob", Role.OWNER, parts.acting("olga"))
    await parts.remove(top, "bob", parts.acting("alice"))  # a tenant admin holds own


async def test_w5_nobody_changes_their_own_role_but_everybody_may_leave(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "vic", Role.VIEWER)
    assert await refusal(parts.role(top, "olga", Role.ADMIN, parts.acting("olga"))) is Reason.OWN_ROLE
    assert await refusal(parts.role(top, "vic", Role.ADMIN, parts.acting("vic"))) is Reason.ROLE_MISSING
    await parts.remove(top, "vic", parts.acting("vic"))
    assert await refusal(parts.remove(top, "olga", parts.acting("olga"))) is Reason.LAST_OWNER


async def test_w5_the_creator_stays_unless_they_go_themselves_or_by_a_system_key(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", caller=parts.acting("alice"))
    await parts.role(top, "otto", Role.OWNER)
    otto = parts.acting("otto")
    assert await refusal(parts.remove(top, "alice", otto)) is Reason.CREATOR_STAYS
    assert await refusal(parts.role(top, "alice", Role.VIEWER, otto)) is Reason.CREATOR_STAYS
    assert await refusal(transfer(parts, top, "alice", "bob", otto)) is Reason.CREATOR_STAYS
    await parts.role(top, "alice", Role.ADMIN)  # a system key
    await parts.role(top, "alice", Role.OWNER)
    await parts.remove(top, "alice", parts.acting("alice"))


async def test_an_owner_steps_back_by_transferring(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    new, old = (await transfer(parts, top, "olga", "bob", parts.acting("olga"))).record
    assert (new.subject.id, new.role, old.subject.id, old.role) == ("bob", Role.OWNER, "olga", Role.ADMIN)
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        ["-owner@user:olga", "+admin@user:olga", "+owner@user:bob"]
    )
    assert await refusal(transfer(parts, top, "olga", "bob")) is Reason.NOT_FOUND


async def test_a_transfer_to_a_user_who_is_not_active_leaves_no_workspace_without_an_active_owner(parts) -> None:
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top", owner="olga")
    await parts.role(top, "sue", Role.VIEWER)
    await suspend(parts, "sue")
    assert await refusal(transfer(parts, top, "olga", "sue")) is Reason.LAST_OWNER


async def test_many_roles_are_set_together_or_not_at_all(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")

    def assign(user: str, role: Role, on=top) -> RoleAssignment:
        kind = "workspace" if on is top else "tenant"
        return RoleAssignment(ObjectRef(kind, on.id), SubjectRef("user", user), role)

    async def set_roles(*assignments: RoleAssignment):
        return await parts.memberships.set_roles(
            parts.system, tenant.id, assignments=assignments, options=parts.options("SetRoles")
        )

    before = len(await parts.operations(tenant))
    assert await refusal(set_roles(assign("bob", Role.VIEWER), assign("olga", Role.VIEWER))) is Reason.LAST_OWNER
    assert len(await parts.operations(tenant)) == before
    done = await set_roles(
        assign("bob", Role.OWNER),
        assign("olga", Role.VIEWER),
        assign("bob", Role.OWNER),
        assign("mia", Role.MEMBER, tenant),
    )
    assert [m.role for m in done.record] == [Role.OWNER, Role.VIEWER, Role.OWNER, Role.MEMBER]
    assert sorted((await parts.operations(tenant))[-1]) == sorted(
        ["-owner@user:olga", "+viewer@user:olga", "+owner@user:bob", "+member@user:mia"]
    )
    with pytest.raises(InvalidRequest, match="assignments"):
        await set_roles()


async def test_members_are_listed_and_found_only_by_those_who_see_the_object(parts) -> None:
    tenant, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    for user in ("bob", "adam", "vic"):
        await parts.role(top, user, Role.VIEWER)
    on_top = ObjectRef("workspace", top.id)

    async def listed(caller, size):
        users, page_token = [], ""
        while True:
            page = await parts.memberships.list_members(
                caller, tenant.id, object=on_top, page_size=size, page_token=page_token
            )
            users += [m.subject.id for m in page.records]
            page_token = page.next_page_token
            if not page_token:
                return users

    for size in (1, 3, 4, 100):
        assert await listed(parts.acting("vic"), size) == ["adam", "bob", "olga", "vic"]
    with pytest.raises(NotFound):
        await listed(parts.acting("mallory"), 5)
    found = await parts.memberships.get_membership(
        parts.system, tenant.id, object=on_top, subject=SubjectRef("user", "vic")
    )
    assert found.record.role is Role.VIEWER
    with pytest.raises(NotFound):
        await parts.memberships.get_membership(
            parts.system, tenant.id, object=on_top, subject=SubjectRef("user", "nobody")
        )


async def test_w5_nobody_becomes_owner_by_their_own_transfer(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    assert await refusal(parts.remove(top, "olga", parts.acting("alice"), transfer_to="alice")) is Reason.OWN_ROLE


async def test_an_owner_of_the_root_who_is_no_tenant_admin_passes_it_on_to_nobody(parts) -> None:
    _, root = await parts.tenant("alice")
    await parts.role(root, "rob", Role.OWNER)
    leaving = parts.remove(root, "rob", parts.acting("rob"), transfer_to="mal")
    assert await refusal(leaving) is Reason.ROLE_MISSING
    await parts.remove(root, "rob", parts.acting("alice"), transfer_to="bob")


async def test_an_outsider_changes_nothing_in_a_tenant_and_learns_nothing_of_it(parts) -> None:
    tenant, root = await parts.tenant("alice")
    await parts.role(root, "sue", Role.VIEWER)
    await suspend(parts, "sue")
    before = len(await parts.operations(tenant))
    unknown = replace(tenant, id="ten_01h455vb4pex5vsknk084sn02q")
    for user in ("mallory", "sue"):
        for on in (tenant, unknown):
            with pytest.raises(NotFound, match=f"^tenant {on.id} was not found$"):
                await parts.remove(on, user, parts.acting(user), allow_missing=True)
    await parts.tenants.suspend_tenant(parts.system, tenant.id, options=parts.options())
    assert await refusal(parts.role(tenant, "bob", Role.MEMBER, parts.acting("mallory"))) is Reason.NOT_FOUND
    assert len(await parts.operations(tenant)) == before + 1


async def test_a_user_with_very_many_roles_is_removed_in_a_few_statements(parts) -> None:
    tenant, root = await parts.tenant("alice")
    await parts.role(tenant, "bob", Role.MEMBER)
    await parts.sql(
        "INSERT INTO workspaces (tenant_id, id, parent_id, slug, name, kind, changed_seq)"
        " SELECT $1, 'ws_' || n, $2, 'w-' || n, 'W', 'shared', 1 FROM generate_series(1, 3000) n",
        tenant.id,
        root.id,
    )
    await parts.sql(
        "INSERT INTO memberships (tenant_id, workspace_id, subject_type, subject_id, role, changed_seq)"
        " SELECT $1, 'ws_' || n, 'user', 'bob', 'viewer', 1 FROM generate_series(1, 3000) n",
        tenant.id,
    )
    async with counted_statements() as statements:
        await parts.remove(tenant, "bob")
    assert len(statements) < 20
    assert await parts.sql("SELECT FROM memberships WHERE subject_id = 'bob'") == []
    assert [len(row) for row in (await parts.operations(tenant))[-7:]] == [500] * 6 + [1]


async def test_a_missing_membership_is_not_found_unless_that_is_allowed(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top")
    with pytest.raises(NotFound):
        await parts.remove(top, "bob")
    answer = await parts.remove(top, "bob", allow_missing=True)
    assert (answer.record, answer.token) == (None, "")


async def test_an_object_of_another_tenant_is_not_found(parts) -> None:
    tenant, _ = await parts.tenant()
    other, other_root = await parts.tenant()
    theirs = await parts.workspace(other_root, "theirs")
    for foreign in (ObjectRef("workspace", theirs.id), ObjectRef("tenant", other.id)):
        with pytest.raises(NotFound):
            await parts.memberships.set_role(
                parts.system,
                tenant.id,
                object=foreign,
                subject=SubjectRef("user", "bob"),
                role=Role.MEMBER,
                options=parts.options("SetRole"),
            )


async def test_a_replay_gives_the_stored_answer_with_its_token_and_writes_nothing(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    first = await parts.role(top, "bob", Role.VIEWER, request_id="r1", body_digest=b"x")
    await parts.role(top, "bob", Role.ADMIN)
    again = await parts.role(top, "bob", Role.VIEWER, request_id="r1", body_digest=b"x")
    assert (again.record, again.token) == (first.record, first.token)
    assert (first.replayed, again.replayed) == (False, True)
    assert len(await parts.operations(tenant)) == 4
    assert await refusal(parts.role(top, "bob", Role.VIEWER, request_id="r1", body_digest=b"y")) is (
        Reason.REQUEST_ID_REUSED
    )
    # The key is the caller's own: another caller's is another key.
    await parts.role(top, "bob", Role.VIEWER, parts.acting("alice"), request_id="r1", body_digest=b"z")


async def test_one_request_id_sent_many_times_at_once_is_one_change(parts) -> None:
    tenant, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    answers = await asyncio.gather(
        *(parts.role(top, "bob", Role.VIEWER, request_id="r1", body_digest=b"x") for _ in range(10))
    )
    assert len({a.token for a in answers}) == 1
    assert len(await parts.operations(tenant)) == 3


async def test_rights_on_the_tenants_own_roles_are_its_admins(parts) -> None:
    tenant, _ = await parts.tenant("alice")
    await parts.role(tenant, "mia", Role.MEMBER, parts.acting("alice"))
    with pytest.raises(Forbidden):
        await parts.role(tenant, "bob", Role.MEMBER, parts.acting("mia"))
    with pytest.raises(NotFound):
        await parts.role(tenant, "bob", Role.MEMBER, parts.acting("mallory"))
    await parts.remove(tenant, "mia", parts.acting("mia"))
