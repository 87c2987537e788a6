"""AuditService, and what else is audited: what it takes, its answers field by field, and who is noted."""

from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.errors import Forbidden, Reason
from pemba.model import GLOBAL_STREAM, Operation, Scope, Seq, TenantId, Tuple, TupleOperation
from pemba.rpc.about import named_in
from pemba.rpc.audited import AUDITED_READS
from pemba.rpc.scopes import SCOPES
from pemba.service.audit import AuditEvent, AuditFilter, Exported, Outcome
from pemba.service.results import Page
from pemba.v1 import audit_pb2, memberships_pb2, tenants_pb2, types_pb2, users_pb2, workspaces_pb2
from pemba.v1.audit_pb2 import AuditFilter as FilterMessage
from pemba.v1.audit_pb2 import ExportAuditEventsRequest, ListAuditEventsRequest

TENANT_ID = TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e6")
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
TUPLE = f"workspace:{TENANT_ID}/{WORKSPACE_ID}#viewer@user:bob"
EVENT = AuditEvent(
    id=7,
    tenant_id=TENANT_ID,
    seq=Seq(3),
    part=0,
    parts=2,
    create_time=NOW,
    principal="system_key:1",
    acting_user="alice",
    peer="ipv4:127.0.0.1:1",
    request_id="r-1",
    method="SetRole",
    object=f"workspace:{WORKSPACE_ID}",
    about=("user:bob",),
    outcome=Outcome.CHANGED,
    reason="",
    before=None,
    after=[{"role": "viewer", "n": 1}],
    records_left_out=False,
    operations=(TupleOperation(Operation.TOUCH, Tuple.parse(TUPLE)),),
)


async def test_an_event_is_told_field_by_field(running):
    running.audit.answers["list_events"] = Page((EVENT,), "next", "")
    answer = await running.call("ListAuditEvents", ListAuditEventsRequest(tenant_id=TENANT_ID))
    assert answer.next_page_token == "next"
    assert MessageToDict(answer.audit_events[0], preserving_proto_field_name=True) == {
        "id": "7",
        "tenant_id": TENANT_ID,
        "seq": "3",
        "part": 1,
        "parts": 2,
        "create_time": "2026-11-21T09:30:00Z",
        "principal": "system_key:1",
        "acting_user": "alice",
        "peer": "ipv4:127.0.0.1:1",
        "request_id": "r-1",
        "method": "SetRole",
        "object": f"workspace:{WORKSPACE_ID}",
        "about": ["user:bob"],
        "outcome": "AUDIT_OUTCOME_CHANGED",
        "after": [{"role": "viewer", "n": 1.0}],
        "operations": [{"operation": "TUPLE_OPERATION_TOUCH", "tuple": TUPLE}],
    }


async def test_what_is_asked_for_reaches_the_service(running):
    everything = FilterMessage(
        object=types_pb2.ObjectRef(type="workspace", id=WORKSPACE_ID),
        subject=types_pb2.SubjectRef(type="group", id="g", relation="member"),
        actor="user:alice",
        method="SetRole",
        request_id="r-1",
        outcome=audit_pb2.AUDIT_OUTCOME_READ,
        since=Timestamp(seconds=1),
        until=Timestamp(seconds=2),
    )
    request = ListAuditEventsRequest(tenant_id=TENANT_ID, filter=everything, order_by="id", page_size=5, page_token="p")
    await running.call("ListAuditEvents", request)
    await running.call("ListAuditEvents", ListAuditEventsRequest())
    wanted = AuditFilter(
        object=f"workspace:{WORKSPACE_ID}",
        subject="group:g",
        actor="user:alice",
        method="SetRole",
        request_id="r-1",
        outcome=Outcome.READ,
        since=datetime.fromtimestamp(1, UTC),
        until=datetime.fromtimestamp(2, UTC),
    )
    first, second = running.audit.calls
    assert first.arguments[1:] == (TENANT_ID,)
    assert first.options == {"wanted": wanted, "newest_first": False, "page_size": 5, "page_token": "p"}
    assert second.arguments[1:] == (None,)
    assert second.options == {"wanted": AuditFilter(), "newest_first": True, "page_size": 100, "page_token": ""}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"object": types_pb2.ObjectRef(type="workspace")}, "filter.object"),
        ({"actor": "x\n"}, "filter.actor"),
        ({"method": "x" * 401}, "filter.method"),
        ({"outcome": 9}, "filter.outcome"),
        ({"since": Timestamp(seconds=2**60)}, "filter.since"),
    ],
)
async def test_a_filter_that_can_find_nothing_is_named(running, given, field):
    refusal = await running.refusal("ListAuditEvents", ListAuditEventsRequest(filter=FilterMessage(**given)))
    assert list(refusal.violations) == [field]


async def test_an_export_gives_each_event_with_its_cursor_and_at_the_end_one_alone(running):
    running.audit.streams["export_events"] = [Exported(EVENT, "c1"), Exported(None, "c2")]
    first, last = await running.call("ExportAuditEvents", ExportAuditEventsRequest(cursor="c0"))
    assert (first.audit_event.id, first.cursor) == (7, "c1")
    assert (last.HasField("audit_event"), last.cursor) == (False, "c2")
    assert running.audit.calls[0].options == {"wanted": AuditFilter(), "cursor": "c0"}


# -- who reads rosters, and what is refused before there is a transaction -------------------------------------


def test_the_reads_that_are_audited_are_there_and_read():
    assert SCOPES.keys() >= AUDITED_READS
    assert {SCOPES[method] for method in AUDITED_READS} == {Scope.READ, Scope.CHECK, Scope.ADMIN}


async def test_who_reads_a_roster_is_noted_once_it_is_answered(running):
    workspace = types_pb2.ObjectRef(type="workspace", id=WORKSPACE_ID)
    await running.call("ListMembers", memberships_pb2.ListMembersRequest(tenant_id=TENANT_ID, object=workspace))
    [(caller, tenant_id, method, about)] = running.roster_reads.calls
    assert caller.principal.startswith("system_key:")
    assert (tenant_id, method) == (TENANT_ID, "ListMembers")
    assert about == (f"workspace:{WORKSPACE_ID}", f"tenant:{TENANT_ID}")
    await running.refusal("ListMembers", memberships_pb2.ListMembersRequest())
    await running.call("GetTenant", tenants_pb2.GetTenantRequest(tenant_id=TENANT_ID))
    await running.call("ListUsers", users_pb2.ListUsersRequest())
    assert [call[1:3] for call in running.roster_reads.calls[1:]] == [(None, "ListUsers")]


async def test_a_call_without_its_scope_is_audited_with_what_it_was_about(running):
    poor = {"authorization": f"Bearer {running.keys.issue(Scope.READ)}"}
    request = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=TENANT_ID, workspace_id=WORKSPACE_ID)
    refusal = await running.refusal("DeleteWorkspace", request, ("x-request-id", "r-1"), **poor)
    assert refusal.reason == "SCOPE_MISSING"
    acting = ("pemba-on-behalf-of", "user:alice")
    await running.refusal("GetTenant", tenants_pb2.GetTenantRequest(slug="acme"), acting, **poor)
    first, second = (noted.arguments for noted in running.refusals.calls)
    assert (first[0].principal, first[0].request_id) == ("api_key:key_1", "r-1")
    assert first[1:3] == (TENANT_ID, "DeleteWorkspace")
    assert first[3].reason == "SCOPE_MISSING"
    assert first[4] == (f"workspace:{WORKSPACE_ID}", f"tenant:{TENANT_ID}")
    assert second[1:3] == (GLOBAL_STREAM, "GetTenant")


async def test_a_confined_key_without_a_scope_is_audited_in_its_own_tenant_as_whom_it_is(running):
    secret = running.keys.issue(Scope.READ, tenant_id=TENANT_ID, workspace_id=WORKSPACE_ID, user_id="alice")
    request = workspaces_pb2.DeleteWorkspaceRequest(
        tenant_id="ten_01kafa7q0ve8x9m1t2b3c4d5e7", workspace_id=WORKSPACE_ID
    )
    await running.refusal("DeleteWorkspace", request, authorization=f"Bearer {secret}")
    [noted] = running.refusals.calls
    caller, stream, *_ = noted.arguments
    assert stream == TENANT_ID
    assert (caller.tenant_id, caller.workspace_id, caller.acting_user) == (TENANT_ID, WORKSPACE_ID, "alice")


async def test_what_names_nothing_that_can_be_read_is_audited_all_the_same(running):
    poor = {"authorization": f"Bearer {running.keys.issue()}"}
    request = workspaces_pb2.DeleteWorkspaceRequest(tenant_id="\0", workspace_id="\n")
    await running.refusal("DeleteWorkspace", request, **poor)
    [noted] = running.refusals.calls
    assert noted.arguments[1] == GLOBAL_STREAM
    assert noted.arguments[4] == ()


async def test_a_reader_of_the_audit_who_is_refused_is_audited_and_another_reader_is_not(running):
    async def refuse(*_, **__):
        raise Forbidden(Reason.ROLE_MISSING, "no")

    running.audit.answers["list_events"] = running.tenants.answers["list_tenants"] = refuse
    await running.refusal("ListAuditEvents", ListAuditEventsRequest(tenant_id=TENANT_ID))
    await running.refusal("ListTenants", tenants_pb2.ListTenantsRequest())
    assert [noted.arguments[1:3] for noted in running.refusals.calls] == [(TENANT_ID, "ListAuditEvents")]


def test_what_a_request_names_is_told_with_its_object_first():
    bob = types_pb2.SubjectRef(type="user", id="bob")
    request = memberships_pb2.RemoveMemberRequest(
        tenant_id=TENANT_ID,
        object=types_pb2.ObjectRef(type="workspace", id=WORKSPACE_ID),
        subject=bob,
        transfer_to="carol",
    )
    assert named_in(request) == (f"workspace:{WORKSPACE_ID}", "user:bob", "user:carol", f"tenant:{TENANT_ID}")
    create = workspaces_pb2.CreateWorkspaceRequest(tenant_id=TENANT_ID, parent_id=WORKSPACE_ID)
    assert named_in(create) == (f"workspace:{WORKSPACE_ID}", f"tenant:{TENANT_ID}")
    assert named_in(workspaces_pb2.GetWorkspaceRequest(path="x" * 500)) == ()
