"""Every change can be tried: it is decided, told, and not made."""

from __future__ import annotations

import asyncpg
import grpc
import pytest
from google.protobuf.json_format import MessageToDict

from pemba.rpc.server import SERVICES
from pemba.v1 import memberships_pb2, types_pb2, users_pb2, workspaces_pb2
from tests.stack import Refusal

TABLES = ("users", "workspaces", "memberships", "outbox", "audit", "idempotency")


def ref(workspace: workspaces_pb2.Workspace) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(type="workspace", id=workspace.id)


def user(id_: str) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=id_)


async def rows(database_url: str) -> dict[str, int]:
    connection = await asyncpg.connect(database_url)
    try:
        return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES}
    finally:
        await connection.close()


def test_whatever_can_be_tried_tells_what_it_would_do() -> None:
    tried = [m for service in SERVICES for m in service.methods if "validate_only" in m.input_type.fields_by_name]
    assert len(tried) > 30
    assert [m.name for m in tried if "preview" not in m.output_type.fields_by_name] == []


async def test_a_role_that_is_tried_names_its_record_and_its_tuple_and_writes_nothing(api, database_url: str) -> None:
    root = (await api.tenant("acme")).root_workspace
    eng = (await api.workspace(root, "eng")).workspace
    before = await rows(database_url)
    request = memberships_pb2.SetRoleRequest(
        tenant_id=root.tenant_id, object=ref(eng), subject=user("bob"), role=types_pb2.ROLE_VIEWER, validate_only=True
    )
    tried = await api.memberships.SetRole(request, metadata=api.metadata())
    assert await rows(database_url) == before
    assert tried.token == ""
    [record] = tried.preview.records
    assert MessageToDict(record.before) == []
    assert [each["role"] for each in MessageToDict(record.after)] == ["viewer"]
    assert list(tried.preview.tuples_added) == [f"workspace:{root.tenant_id}/{eng.id}#viewer@user:bob"]
    assert list(tried.preview.tuples_removed) == []
    request.validate_only = False
    assert not (await api.memberships.SetRole(request, metadata=api.metadata())).HasField("preview")
    request.validate_only, request.role = True, types_pb2.ROLE_ADMIN
    tried = await api.memberships.SetRole(request, metadata=api.metadata())
    assert list(tried.preview.tuples_removed) == [f"workspace:{root.tenant_id}/{eng.id}#viewer@user:bob"]
    assert list(tried.preview.tuples_added) == [f"workspace:{root.tenant_id}/{eng.id}#admin@user:bob"]


async def test_what_would_be_refused_is_refused_when_it_is_tried(api) -> None:
    root = (await api.tenant("acme")).root_workspace
    request = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=root.tenant_id, workspace_id=root.id, validate_only=True)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await api.workspaces.DeleteWorkspace(request, metadata=api.metadata())
    assert Refusal(error.value).reason == "ROOT_WORKSPACE"


async def test_a_user_who_is_tried_is_not_made(api, database_url: str) -> None:
    before = await rows(database_url)
    request = users_pb2.CreateUserRequest(id="bob", email="bob@acme.test", validate_only=True)
    tried = await api.users.CreateUser(request, metadata=api.metadata())
    assert [record.object for record in tried.preview.records] == ["user:bob"]
    assert await rows(database_url) == before
