"""AuditService and `pemba audit` over gRPC on real servers."""

from __future__ import annotations

import csv
import json

import grpc
import pytest

from pemba.v1 import audit_pb2, audit_pb2_grpc, memberships_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.audit_pb2 import AUDIT_OUTCOME_READ, AUDIT_OUTCOME_REFUSED, ListAuditEventsRequest
from tests.stack import Ran, run_command
from tests.truth import eventually


@pytest.fixture
def audit(api):
    return audit_pb2_grpc.AuditServiceStub(api.channel)


async def pemba(api, *arguments: str) -> Ran:
    return await run_command(*arguments, endpoint=api.endpoint, key=api.key)


async def listed(api, audit, tenant_id: str, **wanted) -> list[audit_pb2.AuditEvent]:
    request = ListAuditEventsRequest(tenant_id=tenant_id, filter=audit_pb2.AuditFilter(**wanted), order_by="id")
    answer = await audit.ListAuditEvents(request, metadata=api.metadata(x_request_id="reading"))
    return list(answer.audit_events)


async def test_a4_changes_refusals_and_readers_are_listed_with_who_from_where_and_which_request(
    api, audit, reason
) -> None:
    root = (await api.tenant("acme")).root_workspace
    workspace = types_pb2.ObjectRef(type="workspace", id=root.id)
    bob = types_pb2.SubjectRef(type="user", id="bob")
    grant = memberships_pb2.SetRoleRequest(
        tenant_id=root.tenant_id, object=workspace, subject=bob, role=types_pb2.ROLE_VIEWER
    )
    alice = {"pemba_on_behalf_of": "user:alice", "x_request_id": "r-1"}
    await api.memberships.SetRole(grant, metadata=api.metadata(**alice))
    delete = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=root.tenant_id, workspace_id=root.id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.workspaces.DeleteWorkspace(delete, metadata=api.metadata(**alice))
    assert reason(caught.value) == "ROOT_WORKSPACE"
    roster = memberships_pb2.ListMembersRequest(tenant_id=root.tenant_id, object=workspace)
    for _ in range(3):
        await api.memberships.ListMembers(roster, metadata=api.metadata(**alice))
    changed, refused = await listed(api, audit, root.tenant_id, request_id="r-1")
    for event in (changed, refused):
        assert (event.acting_user, event.object) == ("alice", f"workspace:{root.id}")
        assert event.principal.startswith("system_key:")
        assert event.peer.startswith("ipv4:127.0.0.1:")
    assert (changed.method, changed.seq, list(changed.about)) == ("SetRole", 2, ["user:bob"])
    assert changed.after.list_value[0]["role"] == "viewer"
    assert changed.operations[0].tuple.endswith("#viewer@user:bob")
    assert (refused.outcome, refused.reason, refused.seq) == (AUDIT_OUTCOME_REFUSED, "ROOT_WORKSPACE", 0)
    assert changed.id < refused.id

    async def read() -> list[audit_pb2.AuditEvent]:
        return await listed(api, audit, root.tenant_id, method="ListMembers", outcome=AUDIT_OUTCOME_READ)

    [event] = await eventually(read)
    assert (event.request_id, event.acting_user, event.object) == ("r-1", "alice", f"workspace:{root.id}")
    readers = await listed(api, audit, root.tenant_id, outcome=AUDIT_OUTCOME_READ, request_id="reading")
    assert {event.method for event in readers} == {"ListAuditEvents"}


async def test_a_refused_reader_and_a_refused_tenant_are_audited(api, audit, reason) -> None:
    tenant = (await api.tenant("acme")).tenant
    metadata = api.metadata(pemba_on_behalf_of="user:eve")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await audit.ListAuditEvents(ListAuditEventsRequest(), metadata=metadata)
    assert reason(caught.value) == "ROLE_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await audit.ListAuditEvents(ListAuditEventsRequest(tenant_id=tenant.id), metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    create = tenants_pb2.CreateTenantRequest(slug="globex", name="Globex", first_admin="eve")
    with pytest.raises(grpc.aio.AioRpcError):
        await api.tenants.CreateTenant(create, metadata=metadata)
    refused = await listed(api, audit, "", outcome=AUDIT_OUTCOME_REFUSED)
    assert [(event.method, event.object, event.acting_user) for event in refused] == [
        ("ListAuditEvents", "installation", "eve"),
        ("CreateTenant", "tenant:globex", "eve"),
    ]


async def test_people_list_and_export_the_audit(api) -> None:
    tenant = (await api.tenant("acme")).tenant
    header, *rows = (await pemba(api, "audit", "list", "-t", "acme", "--method", "CreateTenant")).out.splitlines()
    assert header.split() == ["TIME", "WHO", "FOR", "METHOD", "OBJECT", "OUTCOME"]
    assert [row.split()[-3:] for row in rows] == [["CreateTenant", f"tenant:{tenant.id}", "changed"]]
    exported = await pemba(api, "audit", "export", "-t", "acme", "--outcome", "changed")
    [event] = [json.loads(line) for line in exported.out.splitlines()]
    assert event["after"][0]["slug"] == "acme"
    cursor = exported.err.split()[-1]
    again = await pemba(api, "audit", "export", "-t", "acme", "--outcome", "changed", "--cursor", cursor)
    assert (again.code, again.out) == (0, "")
    table = await pemba(api, "audit", "export", "-t", "acme", "--format", "csv", "--outcome", "changed")
    assert [row["method"] for row in csv.DictReader(table.out.splitlines())] == ["CreateTenant"]
