"""`pemba audit list | export`: what they send, and what people, programs and spreadsheets read."""

import csv
import json

from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import audit_pb2 as pb
from pemba.v1 import operations_pb2, tenants_pb2, types_pb2

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
ENG_ID = "ws_01h455vb4pex5vsknk084sn02s"
AT = Timestamp(seconds=1_700_000_000)
GET_ACME = tenants_pb2.GetTenantResponse(tenant=tenants_pb2.Tenant(id=TENANT_ID, slug="acme"))
CHANGED = pb.AuditEvent(
    id=7,
    tenant_id=TENANT_ID,
    create_time=AT,
    principal="system_key:1a2b3c4d",
    acting_user="alice",
    peer="ipv4:127.0.0.1:1",
    request_id="r-1",
    method="SetRole",
    object=f"workspace:{ENG_ID}",
    about=["user:bob"],
    outcome=pb.AUDIT_OUTCOME_CHANGED,
    seq=3,
    part=1,
    parts=1,
    after=Value(string_value="x"),
    operations=[operations_pb2.TailedOperation(operation=operations_pb2.TUPLE_OPERATION_TOUCH, tuple="a:b#c@d:e")],
)
REFUSED = pb.AuditEvent(
    id=8,
    create_time=AT,
    principal="k",
    request_id="=cmd()",
    method="DeleteWorkspace",
    object="x",
    outcome=pb.AUDIT_OUTCOME_REFUSED,
    reason="ROOT_WORKSPACE",
    part=2,
    parts=3,
)


def test_events_are_a_table_of_who_did_what_to_what(pemba, api):
    api.answer("ListAuditEvents", pb.ListAuditEventsResponse(audit_events=[CHANGED, REFUSED]))
    done = pemba("audit", "list", "--tenant", TENANT_ID)
    header, *rows = (line.split() for line in done.out.splitlines())
    assert header == ["TIME", "WHO", "FOR", "METHOD", "OBJECT", "OUTCOME"]
    assert rows[0][2:] == ["system_key:1a2b3c4d", "user:alice", "SetRole", f"workspace:{ENG_ID}", "changed"]
    assert rows[1][-3:] == ["refused", "2/3", "ROOT_WORKSPACE"]


def test_every_filter_is_sent(pemba, api):
    api.answer("GetTenant", GET_ACME)
    api.answer("ListAuditEvents", pb.ListAuditEventsResponse())
    pemba(
        *("audit", "list", "-t", "acme", "--object", f"workspace:{ENG_ID}", "--subject", "user:bob"),
        *("--actor", "user:alice", "--method", "SetRole", "--outcome", "refused", "--of-request", "r-1"),
        *("--since", "2023-11-14T22:13:20", "--until", "2023-11-14T23:13:20+01:00", "--oldest-first"),
    )
    wanted = pb.AuditFilter(
        object=types_pb2.ObjectRef(type="workspace", id=ENG_ID),
        subject=types_pb2.SubjectRef(type="user", id="bob"),
        actor="user:alice",
        method="SetRole",
        request_id="r-1",
        outcome=pb.AUDIT_OUTCOME_REFUSED,
        since=AT,
        until=AT,
    )
    assert api.requests[1][1] == pb.ListAuditEventsRequest(
        tenant_id=TENANT_ID, filter=wanted, order_by="id", page_size=100
    )


def test_the_installations_events_take_no_tenant(pemba, api, monkeypatch):
    monkeypatch.setenv("PEMBA_TENANT", "acme")
    api.answer("ListAuditEvents", pb.ListAuditEventsResponse())
    pemba("audit", "list", "--installation")
    assert api.requests[0][1].tenant_id == ""
    both = pemba("audit", "list", "--installation", "--tenant", "acme")
    assert (both.code, "--installation and --tenant" in both.err) == (2, True)


def test_a_time_that_is_none_is_named(pemba, api):
    done = pemba("audit", "list", "-t", TENANT_ID, "--since", "yesterday")
    assert done.code == 2
    assert "--since" in done.err


def exported():
    return iter(
        [
            pb.ExportAuditEventsResponse(audit_event=CHANGED, cursor="c7"),
            pb.ExportAuditEventsResponse(audit_event=REFUSED, cursor="c8"),
            pb.ExportAuditEventsResponse(cursor="c9"),
        ]
    )


def test_an_export_is_a_line_of_json_for_each_event_and_says_where_the_next_begins(pemba, api):
    api.answer("ExportAuditEvents", exported())
    done = pemba("audit", "export", "-t", TENANT_ID, "--cursor", "c1")
    assert api.requests[0][1] == pb.ExportAuditEventsRequest(tenant_id=TENANT_ID, cursor="c1", filter=pb.AuditFilter())
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["id"], first["after"], second["reason"]) == ("7", "x", "ROOT_WORKSPACE")
    assert done.err == "cursor c9\n"


def test_a_spreadsheet_gets_a_table_in_which_nothing_is_a_formula(pemba, api):
    api.answer("ExportAuditEvents", exported())
    done = pemba("audit", "export", "-t", TENANT_ID, "--format", "csv")
    first, second = csv.DictReader(done.out.splitlines())
    assert (first["principal"], json.loads(first["about"])) == ("system_key:1a2b3c4d", ["user:bob"])
    assert json.loads(first["operations"]) == [{"operation": "TUPLE_OPERATION_TOUCH", "tuple": "a:b#c@d:e"}]
    assert second["request_id"] == "'=cmd()"
