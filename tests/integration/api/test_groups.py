"""Groups over gRPC on real servers: what a group holds all in it hold, for checks, lookups and lists, until it ends."""

from __future__ import annotations

import grpc
import pytest

from pemba.model import MAX_GROUP_DEPTH, MAX_WORKSPACE_DEPTH
from pemba.spicedb.client import SpiceDB
from pemba.v1 import groups_pb2, memberships_pb2, types_pb2, users_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_VIEWER
from tests.integration.api.company import Company, found_company, user_ref
from tests.integration.api.test_effective_members import listed, request
from tests.integration.api.test_lookups import found, resources_request, subjects_request
from tests.stack import Refusal
from tests.truth import require_truth


@pytest.fixture
async def store(spicedb):
    store = SpiceDB.connect(spicedb.endpoint, spicedb.key)
    yield store
    await store.close()


def group_ref(group: groups_pb2.Group) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="group", id=group.id, relation="member")


async def call(company: Company, method: str, *, acting: str = "", **given):
    """A method of the service of groups; the token of a change is the company's latest."""
    asked = getattr(groups_pb2, f"{method}Request")(tenant_id=company.tenant_id, **given)
    metadata = company.api.metadata(**{"pemba_on_behalf_of": f"user:{acting}"} if acting else {})
    answer = await getattr(company.api.groups, method)(asked, metadata=metadata)
    company.token = answer.token or company.token
    return answer


async def found_group(company: Company, slug: str, *members: str | groups_pb2.Group) -> groups_pb2.Group:
    group = (await call(company, "CreateGroup", slug=slug, name=slug.title())).group
    for member in members:
        subject = group_ref(member) if isinstance(member, groups_pb2.Group) else user_ref(member)
        await call(company, "AddGroupMember", group_id=group.id, subject=subject)
    return group


async def role(company: Company, slug: str, group: groups_pb2.Group, role_: int) -> str:
    object_ = types_pb2.ObjectRef(type="tenant", id=company.tenant_id)
    if slug != "tenant":
        object_ = types_pb2.ObjectRef(type="workspace", id=company.workspaces[slug].id)
    asked = memberships_pb2.SetRoleRequest(
        tenant_id=company.tenant_id,
        object=object_,
        subject=types_pb2.SubjectRef(type="group", id=group.id),
        role=role_,
    )
    company.token = (await company.api.memberships.SetRole(asked, metadata=company.api.metadata())).token
    return company.token


async def looked_up(company: Company, user: str, permission: str) -> set[str]:
    return set(await found(company.api, resources_request(company, user, permission)))


async def subjects(company: Company, slug: str, permission: str, type_: str = "user") -> set[str]:
    return set(await found(company.api, subjects_request(company, slug, permission, subject_type=type_)))


async def by_list(company: Company, user: str, permission: str) -> set[str]:
    asked = workspaces_pb2.ListWorkspacesRequest(
        tenant_id=company.tenant_id, recursive=True, subject=user_ref(user), permission=permission
    )
    answer = await company.api.workspaces.ListWorkspaces(asked, metadata=company.api.metadata())
    return {workspace.id for workspace in answer.workspaces}


async def refused(calling) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calling
    refusal = Refusal(error.value)
    return refusal.code, refusal.reason


async def test_k5_what_a_group_may_do_all_in_it_may_until_they_leave_or_it_ends(api, store, database_url) -> None:
    company = await found_company(api)
    below = {company.workspaces[slug].id for slug in ("engineering", "backend", "frontend", "storage")}
    inner = await found_group(company, "inner", "ines", "ivan")
    outer = await found_group(company, "outer", "olga", inner)
    await role(company, "engineering", outer, ROLE_MEMBER)
    for user in ("ines", "ivan", "olga"):
        assert await company.allowed(user, "edit", company.token) == below
        assert await looked_up(company, user, "edit") == await by_list(company, user, "edit") == below
        assert await company.allowed(user, "administer", company.token) == set()
    assert await subjects(company, "storage", "edit") == {"alice", "stan", "beth", "ella", "ines", "ivan", "olga"}
    assert await subjects(company, "storage", "edit", "group") == {inner.id, outer.id}

    await call(company, "RemoveGroupMember", group_id=inner.id, subject=user_ref("ines"))
    assert await company.allowed("ines", "view", company.token) == set()
    await call(company, "RemoveGroupMember", group_id=outer.id, subject=group_ref(inner))
    assert await company.allowed("ivan", "view", company.token) == set()
    assert await company.allowed("olga", "edit", company.token) == below
    await call(company, "DeleteGroup", group_id=outer.id)
    assert await company.allowed("olga", "view", company.token) == set()
    assert await looked_up(company, "olga", "view") == await by_list(company, "olga", "view") == set()
    await require_truth(database_url, store, company.tenant_id)


async def test_who_has_access_is_told_with_the_group_that_gives_it(api) -> None:
    company = await found_company(api)
    inner = await found_group(company, "inner", "ines", "ella")
    outer = await found_group(company, "outer", inner, "ines")
    admins = await found_group(company, "admins", "ivan")
    empty = await found_group(company, "empty")
    await role(company, "backend", outer, ROLE_ADMIN)
    await role(company, "engineering", inner, ROLE_VIEWER)
    await role(company, "tenant", admins, ROLE_ADMIN)
    await role(company, "backend", empty, ROLE_ADMIN)
    names = {w.id: slug for slug, w in company.workspaces.items()}
    names |= {company.tenant_id: "tenant"} | {group.id: group.slug for group in (inner, outer, admins)}
    for size in (1, 3, 1000):
        members = {m.subject.id: m for m in await listed(api, request(company, "storage"), size)}
        through = {
            user: [(names[g.object.id], g.role, names.get(g.group_id, "")) for g in members[user].through]
            for user in ("ines", "ella", "ivan")
        }
        assert through == {
            "ines": [("backend", ROLE_ADMIN, "outer"), ("engineering", ROLE_VIEWER, "inner")],
            "ella": [
                ("backend", ROLE_VIEWER, ""),
                ("backend", ROLE_ADMIN, "outer"),
                ("engineering", ROLE_MEMBER, ""),
                ("engineering", ROLE_VIEWER, "inner"),
            ],
            "ivan": [("tenant", ROLE_ADMIN, "admins")],
        }
        assert {user: members[user].permission for user in through} == {
            "ines": "administer", "ella": "administer", "ivan": "own",
        }  # fmt: skip
    assert set(members) == await subjects(company, "storage", "view")
    of_tenant = await listed(api, request(company, "tenant", "administer"))
    assert [m.subject.id for m in of_tenant] == ["alice", "ivan"]


async def test_groups_and_workspaces_as_deep_as_both_may_be_are_answered(api) -> None:
    """SpiceDB follows 50 steps, and no more: from the deepest workspace over the tenant to the innermost group."""
    company = await found_company(api)
    deepest = company.workspaces["root"]
    for level in range(MAX_WORKSPACE_DEPTH - 1):
        deepest = (await api.workspace(deepest, f"level-{level}")).workspace
    company.workspaces["deepest"] = deepest
    innermost = group = await found_group(company, "level-0", "ines")
    for level in range(1, MAX_GROUP_DEPTH):
        group = await found_group(company, f"level-{level}", group)
    one_more = call(
        company, "AddGroupMember", group_id=innermost.id, subject=group_ref(await found_group(company, "one-more"))
    )
    assert await refused(one_more) == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_DEEP")
    await role(company, "tenant", group, ROLE_ADMIN)
    assert await api.check(deepest, "ines", "view", company.token)
    assert await api.check(deepest, "ines", "own", company.token)
    assert not await api.check(deepest, "ella", "view", company.token)
    assert deepest.id in await looked_up(company, "ines", "view")
    assert {"alice", "ines"} <= await subjects(company, "deepest", "view")
    assert {m.subject.id for m in await listed(api, request(company, "deepest", "own"))} == {"alice", "ines"}


async def test_i1_a_suspended_user_is_denied_what_groups_give_and_has_it_back_when_active(
    api, store, database_url
) -> None:
    company = await found_company(api)
    team = await found_group(company, "team", "ines")
    await role(company, "sales", team, ROLE_VIEWER)
    suspend = users_pb2.SuspendUserRequest(user_id="ines")
    token = (await api.users.SuspendUser(suspend, metadata=api.metadata())).token
    assert not await api.check(company.workspaces["sales"], "ines", "view", token)
    assert "ines" not in await subjects(company, "sales", "view")
    assert await by_list(company, "ines", "view") == set()
    activate = users_pb2.ActivateUserRequest(user_id="ines")
    company.token = (await api.users.ActivateUser(activate, metadata=api.metadata())).token
    assert await api.check(company.workspaces["sales"], "ines", "view", company.token)
    await require_truth(database_url, store, company.tenant_id)


async def test_who_is_removed_from_the_tenant_loses_what_its_groups_gave(api) -> None:
    company = await found_company(api)
    team = await found_group(company, "team", "ines")
    await role(company, "sales", team, ROLE_VIEWER)
    await company.role("tenant", "ines", ROLE_MEMBER)
    assert await api.check(company.workspaces["sales"], "ines", "view", company.token)
    leave = memberships_pb2.RemoveMemberRequest(
        tenant_id=company.tenant_id,
        object=types_pb2.ObjectRef(type="tenant", id=company.tenant_id),
        subject=user_ref("ines"),
    )
    token = (await api.memberships.RemoveMember(leave, metadata=api.metadata())).token
    assert not await api.check(company.workspaces["sales"], "ines", "view", token)
    assert not (await call(company, "ListGroupMembers", group_id=team.id)).group_members


async def test_a_sync_sets_all_members_against_the_etag_that_it_read(api) -> None:
    company = await found_company(api)
    team = await found_group(company, "team", "ines", "ivan")
    await role(company, "sales", team, ROLE_MEMBER)
    read = (await call(company, "GetGroup", slug="team")).group
    wanted = [groups_pb2.GroupMemberAssignment(subject=user_ref(user)) for user in ("ivan", "olga")]
    given = {"group_id": team.id, "members": wanted, "etag": read.etag, "request_id": "sync-1"}
    synced = await call(company, "SetGroupMembers", **given)
    again = await call(company, "SetGroupMembers", **given)
    assert (again.group, again.token, again.replayed) == (synced.group, synced.token, True)
    allowed = [await api.check(company.workspaces["sales"], u, "edit", synced.token) for u in ("ines", "ivan", "olga")]
    assert allowed == [False, True, True]
    stale = call(company, "SetGroupMembers", **given | {"request_id": "sync-2"})
    assert await refused(stale) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    unchanged = await call(company, "SetGroupMembers", **given | {"request_id": "", "etag": synced.group.etag})
    assert (unchanged.group, unchanged.token) == (synced.group, "")


async def test_w4_a_group_is_not_there_for_whom_it_does_not_concern(api) -> None:
    company, other = await found_company(api), await found_company(api, "globex")
    team = await found_group(company, "team", "ines")
    theirs = await found_group(other, "theirs")
    missing, gone = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"), (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    add = {"group_id": team.id, "subject": user_ref("mallory")}
    assert await refused(call(company, "AddGroupMember", **add, acting="ines")) == missing
    for user in ("rita", "mallory"):
        assert await refused(call(company, "AddGroupMember", **add, acting=user)) == gone
        assert await refused(call(company, "GetGroup", group_id=team.id, acting=user)) == gone
        assert await refused(call(company, "ListGroupMembers", group_id=team.id, acting=user)) == gone
    assert await refused(call(company, "GetGroup", group_id=theirs.id)) == gone
    nested = call(company, "AddGroupMember", group_id=team.id, subject=group_ref(theirs))
    assert await refused(nested) == gone
    assert await refused(role(company, "sales", theirs, ROLE_VIEWER)) == gone
    assert [g.slug for g in (await call(company, "ListGroups", acting="ines")).groups] == ["team"]
