"""Personal workspaces over gRPC on real servers: who may do what there, in records, checks and lookups alike."""

from __future__ import annotations

import grpc
import pytest

from pemba.v1 import (
    memberships_pb2,
    permissions_pb2,
    shares_pb2,
    types_pb2,
    users_pb2,
    workspaces_pb2,
)
from pemba.v1.types_pb2 import ROLE_MEMBER, ROLE_OWNER, ROLE_VIEWER
from pemba.v1.workspaces_pb2 import WORKSPACE_KIND_PERSONAL, WORKSPACE_KIND_SHARED
from tests.truth import eventually

FAILED, INVALID = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


async def ensure(api, root, user="", **metadata):
    request = workspaces_pb2.EnsurePersonalWorkspaceRequest(tenant_id=root.tenant_id, user_id=user)
    return await api.workspaces.EnsurePersonalWorkspace(request, metadata=api.metadata(**metadata))


def ref(workspace) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(type="workspace", id=workspace.id)


def user_ref(user: str) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=user)


async def role(api, on, user: str, role_: int, **metadata):
    request = memberships_pb2.SetRoleRequest(tenant_id=on.tenant_id, object=ref(on), subject=user_ref(user), role=role_)
    return await api.memberships.SetRole(request, metadata=api.metadata(**metadata))


async def found_by(api, root, user: str, token: str) -> set[str]:
    request = permissions_pb2.LookupResourcesRequest(
        tenant_id=root.tenant_id,
        type="workspace",
        permission="view",
        subject=user_ref(user),
        consistency=types_pb2.Consistency(at_least_as_fresh=token),
    )
    answers = api.permissions.LookupResources(request, metadata=api.metadata())
    return {answer.resource.id async for answer in answers if answer.HasField("resource")}


async def test_p1_its_user_owns_it_and_neither_tenant_admins_nor_owners_of_the_root_see_it(api) -> None:
    root = (await api.tenant("acme", "alice")).root_workspace
    await role(api, root, "rob", ROLE_OWNER)
    made = await ensure(api, root, "bob")
    mine, token = made.workspace, made.token
    assert (made.created, mine.kind, mine.personal_user_id, mine.parent_id) == (
        True,
        WORKSPACE_KIND_PERSONAL,
        "bob",
        "",
    )
    assert await api.check(mine, "bob", "own", token)
    for user in ("alice", "rob"):
        assert await api.check(root, user, "own", token)
        assert not await api.check(mine, user, "view", token)
        assert await found_by(api, root, user, token) == {root.id}
    assert await found_by(api, root, "bob", token) == {mine.id}
    again = await ensure(api, root, pemba_on_behalf_of="user:bob")
    assert (again.workspace, again.created) == (mine, False)
    assert await api.check(mine, "bob", "own", again.token)


async def test_p1_p2_p3_p4_each_invariant_has_its_reason(api, reason) -> None:
    root = (await api.tenant("acme")).root_workspace
    mine, other = (await ensure(api, root, "bob")).workspace, (await api.workspace(root, "other")).workspace
    named = {"tenant_id": root.tenant_id, "workspace_id": mine.id}
    stub, meta = api.workspaces, {"metadata": api.metadata()}
    update, create = workspaces_pb2.UpdateWorkspaceRequest, workspaces_pb2.CreateWorkspaceRequest
    removed = memberships_pb2.RemoveMemberRequest(tenant_id=root.tenant_id, object=ref(mine), subject=user_ref("bob"))
    shared = shares_pb2.CreateShareRequest(
        tenant_id=root.tenant_id, workspace=ref(mine), with_workspace=ref(other), role=ROLE_VIEWER
    )
    moved = workspaces_pb2.MoveWorkspaceRequest(**named, new_parent_id=root.id)
    child = create(tenant_id=root.tenant_id, parent_id=mine.id, slug="child", name="Child")
    wrong = create(tenant_id=root.tenant_id, parent_id=root.id, slug="child", name="Child", personal_user_id="bob")
    second = create(tenant_id=root.tenant_id, kind=WORKSPACE_KIND_PERSONAL, personal_user_id="bob")
    calls = [
        (role(api, mine, "carol", ROLE_VIEWER), FAILED, "PERSONAL_MEMBERSHIP_FIXED"),
        (api.memberships.RemoveMember(removed, **meta), FAILED, "PERSONAL_MEMBERSHIP_FIXED"),
        (api.shares.CreateShare(shared, **meta), FAILED, "PERSONAL_MEMBERSHIP_FIXED"),
        (stub.UpdateWorkspace(update(**named, kind=WORKSPACE_KIND_SHARED), **meta), FAILED, "PERSONAL_KIND_FROZEN"),
        (stub.MoveWorkspace(moved, **meta), FAILED, "PERSONAL_KIND_FROZEN"),
        (stub.CreateWorkspace(child, **meta), FAILED, "PERSONAL_KIND_FROZEN"),
        (stub.UpdateWorkspace(update(**named, personal_user_id="carol"), **meta), FAILED, "PERSONAL_OWNER_FROZEN"),
        (stub.CreateWorkspace(wrong, **meta), INVALID, "OWNER_ONLY_ON_PERSONAL"),
        (stub.CreateWorkspace(second, **meta), grpc.StatusCode.ALREADY_EXISTS, "PERSONAL_EXISTS"),
    ]
    for call, code, why in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert (refused.value.code(), reason(refused.value)) == (code, why)


async def test_p5_its_user_does_with_it_what_owners_do_and_an_admin_of_the_tenant_does_not_find_it(api, reason) -> None:
    root = (await api.tenant("acme", "alice")).root_workspace
    made = await ensure(api, root, "bob")
    mine, token = made.workspace, made.token
    named = {"tenant_id": root.tenant_id, "workspace_id": mine.id}
    calls = {
        "UpdateWorkspace": workspaces_pb2.UpdateWorkspaceRequest(**named, name="My own"),
        "ArchiveWorkspace": workspaces_pb2.ArchiveWorkspaceRequest(**named),
        "UnarchiveWorkspace": workspaces_pb2.UnarchiveWorkspaceRequest(**named),
        "DeleteWorkspace": workspaces_pb2.DeleteWorkspaceRequest(**named),
    }
    for method, request in calls.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(api.workspaces, method)(request, metadata=api.metadata(pemba_on_behalf_of="user:alice"))
        assert (refused.value.code(), reason(refused.value)) == (NOT_FOUND, "NOT_FOUND")
        answer = await getattr(api.workspaces, method)(request, metadata=api.metadata(pemba_on_behalf_of="user:bob"))
        token = answer.token or token
        allowed = method in ("UpdateWorkspace", "UnarchiveWorkspace")
        assert await api.check(mine, "bob", "own", token) is allowed, method


async def test_who_leaves_the_tenant_or_is_deactivated_loses_it_for_good(api) -> None:
    root = (await api.tenant("acme", "alice")).root_workspace
    tenant = types_pb2.ObjectRef(type="tenant", id=root.tenant_id)
    for user in ("bob", "carol"):
        request = memberships_pb2.SetRoleRequest(
            tenant_id=root.tenant_id, object=tenant, subject=user_ref(user), role=ROLE_MEMBER
        )
        await api.memberships.SetRole(request, metadata=api.metadata())
    bobs, carols = [await ensure(api, root, user) for user in ("bob", "carol")]
    assert await api.check(carols.workspace, "carol", "own", carols.token)
    request = memberships_pb2.RemoveMemberRequest(tenant_id=root.tenant_id, object=tenant, subject=user_ref("bob"))
    gone = await api.memberships.RemoveMember(request, metadata=api.metadata(pemba_on_behalf_of="user:alice"))
    assert not await api.check(bobs.workspace, "bob", "view", gone.token)
    with pytest.raises(grpc.aio.AioRpcError):
        await ensure(api, root, pemba_on_behalf_of="user:bob")
    deactivated = await api.users.DeactivateUser(
        users_pb2.DeactivateUserRequest(user_id="carol"), metadata=api.metadata()
    )
    assert not await api.check(carols.workspace, "carol", "view", deactivated.token)

    async def is_deleted() -> bool:
        request = workspaces_pb2.GetWorkspaceRequest(tenant_id=root.tenant_id, workspace_id=carols.workspace.id)
        try:
            await api.workspaces.GetWorkspace(request, metadata=api.metadata())
        except grpc.aio.AioRpcError as error:
            return error.code() is NOT_FOUND
        return False

    assert await eventually(is_deleted)


async def test_w1_a_user_is_registered_with_a_personal_workspace_in_one_call(api) -> None:
    root = (await api.tenant("acme")).root_workspace
    request = users_pb2.CreateUserRequest(id="bob", display_name="Bob")
    request.create_workspace.tenant_id = root.tenant_id
    request.create_workspace.kind = WORKSPACE_KIND_PERSONAL
    made = await api.users.CreateUser(request, metadata=api.metadata())
    assert (made.workspace.personal_user_id, made.workspace.name) == ("bob", "Bob")
    assert await api.check(made.workspace, "bob", "own", made.token)
    current = await api.users.GetCurrentWorkspace(
        users_pb2.GetCurrentWorkspaceRequest(), metadata=api.metadata(pemba_on_behalf_of="user:bob")
    )
    assert (current.workspace, current.chosen) == (made.workspace, True)
