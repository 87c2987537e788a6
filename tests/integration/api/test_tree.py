"""A tree four deep, from gRPC to PostgreSQL and SpiceDB and back."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from pemba.v1 import errors_pb2, memberships_pb2, permissions_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER, ROLE_VIEWER

PERMISSIONS = ("view", "edit", "administer", "own")


async def set_role(api, workspace, user: str, role) -> str:
    request = memberships_pb2.SetRoleRequest(
        tenant_id=workspace.tenant_id,
        object=types_pb2.ObjectRef(type="workspace", id=workspace.id),
        subject=types_pb2.SubjectRef(type="user", id=user),
        role=role,
    )
    return (await api.memberships.SetRole(request, metadata=api.metadata())).token


async def remove(api, workspace, user: str) -> str:
    request = memberships_pb2.RemoveMemberRequest(
        tenant_id=workspace.tenant_id,
        object=types_pb2.ObjectRef(type="workspace", id=workspace.id),
        subject=types_pb2.SubjectRef(type="user", id=user),
    )
    return (await api.memberships.RemoveMember(request, metadata=api.metadata())).token


async def held(api, workspaces, user: str, token: str) -> list[int]:
    """How many of the four permissions the user holds on each workspace."""
    item = permissions_pb2.BatchCheckItem
    request = permissions_pb2.BatchCheckRequest(
        tenant_id=workspaces[0].tenant_id,
        items=[
            item(
                resource=types_pb2.ObjectRef(type="workspace", id=workspace.id),
                permission=permission,
                subject=types_pb2.SubjectRef(type="user", id=user),
            )
            for workspace in workspaces
            for permission in PERMISSIONS
        ],
        consistency=types_pb2.Consistency(at_least_as_fresh=token),
    )
    results = (await api.permissions.BatchCheck(request, metadata=api.metadata())).results
    allowed = [result.decision == permissions_pb2.DECISION_ALLOWED for result in results]
    assert not any(result.HasField("error") for result in results)
    return [sum(allowed[i : i + 4]) for i in range(0, len(allowed), 4)]


async def line_of_four(api):
    root = (await api.tenant("acme")).root_workspace
    line = [root]
    for slug in ("engineering", "backend", "storage"):
        line.append((await api.workspace(line[-1], slug)).workspace)
    return line


async def test_z3_a_role_holds_on_its_workspace_and_all_below_and_nowhere_else(api) -> None:
    root, engineering, backend, storage = line = await line_of_four(api)
    sales = (await api.workspace(root, "sales")).workspace
    await set_role(api, root, "rita", ROLE_VIEWER)
    await set_role(api, engineering, "ella", ROLE_MEMBER)
    await set_role(api, backend, "beth", ROLE_ADMIN)
    token = await set_role(api, storage, "stan", ROLE_OWNER)
    assert await held(api, [*line, sales], "alice", token) == [4, 4, 4, 4, 4]  # the tenant's admin
    assert await held(api, [*line, sales], "rita", token) == [1, 1, 1, 1, 1]
    assert await held(api, [*line, sales], "ella", token) == [0, 2, 2, 2, 0]
    assert await held(api, [*line, sales], "beth", token) == [0, 0, 3, 3, 0]
    assert await held(api, [*line, sales], "stan", token) == [0, 0, 0, 4, 0]
    assert await held(api, [*line, sales], "nobody", token) == [0, 0, 0, 0, 0]


async def test_z3_a_move_takes_the_inherited_rights_of_the_new_place_and_leaves_the_old_ones(api) -> None:
    root, engineering, backend, storage = await line_of_four(api)
    sales = (await api.workspace(root, "sales")).workspace
    await set_role(api, engineering, "ella", ROLE_MEMBER)
    await set_role(api, sales, "saul", ROLE_ADMIN)
    token = await set_role(api, backend, "beth", ROLE_VIEWER)
    assert await held(api, [backend, storage], "ella", token) == [2, 2]
    assert await held(api, [backend, storage], "saul", token) == [0, 0]
    request = workspaces_pb2.MoveWorkspaceRequest(
        tenant_id=root.tenant_id, workspace_id=backend.id, new_parent_id=sales.id
    )
    moved = await api.workspaces.MoveWorkspace(request, metadata=api.metadata())
    assert await held(api, [backend, storage], "ella", moved.token) == [0, 0]
    assert await held(api, [backend, storage], "saul", moved.token) == [3, 3]
    assert await held(api, [backend, storage], "beth", moved.token) == [1, 1]


async def test_z4_a_removal_is_in_force_at_once_for_a_check_that_carries_its_token(api) -> None:
    _, _, backend, storage = await line_of_four(api)
    for _ in range(20):
        granted = await set_role(api, backend, "beth", ROLE_VIEWER)
        assert await api.check(storage, "beth", "view", granted)
        removed = await remove(api, backend, "beth")
        assert not await api.check(storage, "beth", "view", removed)
        assert await api.check(storage, "beth", "view", granted) is False  # an older token is a lower bound


async def test_z4_many_writers_each_read_their_own_write(api) -> None:
    root, *_ = await line_of_four(api)

    async def write_and_read(n: int) -> None:
        workspace = (await api.workspace(root, f"team-{n}")).workspace
        assert await api.check(workspace, f"user-{n}", "view", await set_role(api, workspace, f"user-{n}", ROLE_VIEWER))
        assert not await api.check(workspace, f"user-{n}", "view", await remove(api, workspace, f"user-{n}"))

    await asyncio.gather(*(write_and_read(n) for n in range(25)))


async def test_archived_and_deleted_workspaces_are_denied_and_come_back_with_unarchive(api) -> None:
    root, engineering, backend, storage = await line_of_four(api)
    await set_role(api, backend, "beth", ROLE_ADMIN)
    named = {"tenant_id": root.tenant_id, "workspace_id": engineering.id}
    archive = workspaces_pb2.ArchiveWorkspaceRequest(**named)
    token = (await api.workspaces.ArchiveWorkspace(archive, metadata=api.metadata())).token
    assert await held(api, [engineering, backend, storage], "beth", token) == [0, 0, 0]
    assert await held(api, [root, engineering, backend], "alice", token) == [4, 0, 0]
    unarchive = workspaces_pb2.UnarchiveWorkspaceRequest(**named)
    token = (await api.workspaces.UnarchiveWorkspace(unarchive, metadata=api.metadata())).token
    assert await held(api, [engineering, backend, storage], "beth", token) == [0, 3, 3]
    delete = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=root.tenant_id, workspace_id=storage.id)
    token = (await api.workspaces.DeleteWorkspace(delete, metadata=api.metadata())).token
    assert await held(api, [backend, storage], "beth", token) == [3, 0]


async def test_a_question_under_another_tenant_finds_nothing(api) -> None:
    _, _, backend, _ = await line_of_four(api)
    other = await api.tenant("globex", "alice")
    token = await set_role(api, backend, "beth", ROLE_ADMIN)
    foreign = workspaces_pb2.Workspace(tenant_id=other.tenant.id, id=backend.id)
    assert await api.check(backend, "beth", "view", token)
    assert not await api.check(foreign, "beth", "view", token)
    assert not await api.check(foreign, "alice", "view", token)


async def test_an_answer_that_may_be_old_gives_no_token(api) -> None:
    """What SpiceDB finds fastest may be older than what is delivered: a token of that would claim too much."""
    _, _, backend, _ = await line_of_four(api)
    token = await set_role(api, backend, "beth", ROLE_ADMIN)
    item = {
        "resource": types_pb2.ObjectRef(type="workspace", id=backend.id),
        "permission": "view",
        "subject": types_pb2.SubjectRef(type="user", id="beth"),
    }
    for consistency, gives in (
        (types_pb2.Consistency(minimize_latency=True), False),
        (types_pb2.Consistency(at_least_as_fresh=token), True),
        (types_pb2.Consistency(fully_consistent=True), True),
        (None, True),
    ):
        named = {"tenant_id": backend.tenant_id, "consistency": consistency}
        one = await api.permissions.Check(permissions_pb2.CheckRequest(**named, **item), metadata=api.metadata())
        batch = permissions_pb2.BatchCheckRequest(**named, items=[permissions_pb2.BatchCheckItem(**item)])
        many = await api.permissions.BatchCheck(batch, metadata=api.metadata())
        assert (bool(one.token), bool(many.token)) == (gives, gives)


async def test_a_batch_over_more_tenants_than_a_token_names_gives_each_item_its_own(api) -> None:
    tenants = [await api.tenant(f"acme-{n:02d}") for n in range(17)]
    items = [
        permissions_pb2.BatchCheckItem(
            tenant_id=created.tenant.id,
            resource=types_pb2.ObjectRef(type="workspace", id=created.root_workspace.id),
            permission="own",
            subject=types_pb2.SubjectRef(type="user", id="alice"),
        )
        for created in tenants
    ]
    consistency = types_pb2.Consistency(fully_consistent=True)
    request = permissions_pb2.BatchCheckRequest(items=items, consistency=consistency)
    answer = await api.permissions.BatchCheck(request, metadata=api.metadata())
    assert answer.token == ""
    assert all(r.token and r.decision == permissions_pb2.DECISION_ALLOWED for r in answer.results)
    request = permissions_pb2.BatchCheckRequest(items=items[:16], consistency=consistency)
    answer = await api.permissions.BatchCheck(request, metadata=api.metadata())
    assert answer.token
    assert not any(r.token for r in answer.results)


async def test_a_workspace_named_in_the_metadata_confines_the_call(api, reason) -> None:
    _, engineering, backend, _ = await line_of_four(api)
    assert not await api.check(backend, "beth", "view", pemba_workspace=backend.id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.check(backend, "beth", "view", pemba_workspace=engineering.id)
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    rename = workspaces_pb2.UpdateWorkspaceRequest(tenant_id=backend.tenant_id, name="Renamed")
    answer = await api.workspaces.UpdateWorkspace(rename, metadata=api.metadata(pemba_workspace=backend.id))
    assert answer.workspace.id == backend.id


async def test_a_suspended_tenant_is_denied_at_once_with_the_reason_and_restored_intact(api) -> None:
    _, _, backend, _ = await line_of_four(api)
    token = await set_role(api, backend, "beth", ROLE_ADMIN)
    assert await api.check(backend, "beth", "view", token)
    suspend = tenants_pb2.SuspendTenantRequest(tenant_id=backend.tenant_id)
    await api.tenants.SuspendTenant(suspend, metadata=api.metadata())
    request = permissions_pb2.CheckRequest(
        tenant_id=backend.tenant_id,
        resource=types_pb2.ObjectRef(type="workspace", id=backend.id),
        permission="view",
        subject=types_pb2.SubjectRef(type="user", id="beth"),
    )
    answer = await api.permissions.Check(request, metadata=api.metadata())
    assert answer.decision == permissions_pb2.DECISION_DENIED
    assert answer.reason == errors_pb2.ERROR_REASON_TENANT_SUSPENDED
    activate = tenants_pb2.ActivateTenantRequest(tenant_id=backend.tenant_id)
    token = (await api.tenants.ActivateTenant(activate, metadata=api.metadata())).token
    assert await api.check(backend, "beth", "view", token)


async def test_who_acts_as_a_user_asks_about_themselves_and_about_others_where_they_administer(api, reason) -> None:
    root, engineering, backend, _ = await line_of_four(api)
    await set_role(api, engineering, "adam", ROLE_ADMIN)
    token = await set_role(api, backend, "vic", ROLE_VIEWER)
    assert await api.check(backend, "vic", "view", token, pemba_on_behalf_of="user:vic")
    assert not await api.check(root, "vic", "view", token, pemba_on_behalf_of="user:vic")
    assert await api.check(backend, "vic", "view", token, pemba_on_behalf_of="user:adam")
    for asking, workspace, expected in (
        ("vic", backend, (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")),
        ("vic", root, (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")),
        ("mallory", backend, (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.check(workspace, "adam", "view", token, pemba_on_behalf_of=f"user:{asking}")
        assert (refused.value.code(), reason(refused.value)) == expected
