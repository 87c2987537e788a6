"""`pemba watch`: what it sends, and what people and programs read."""

import json

from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.v1 import operations_pb2
from pemba.v1 import watch_pb2 as pb

TENANT_ID = "ten_01h455vb4pex5vsknk084sn02q"
ENG_ID = "ws_01h455vb4pex5vsknk084sn02s"
BOB = {"type": "user", "id": "bob", "relation": ""}
MEMBER = {"workspace_id": ENG_ID, "subject": BOB, "role": "member", "etag": "1"}
CHANGE = pb.Change(
    method="SetRole",
    create_time=Timestamp(seconds=1_700_000_000),
    acting_user="alice",
    part=1,
    parts=1,
    records=[
        pb.RecordChange(type="membership"),
        pb.RecordChange(type="membership"),
        pb.RecordChange(type="membership"),
    ],
    operations=[operations_pb2.TailedOperation(operation=operations_pb2.TUPLE_OPERATION_TOUCH, tuple="a:b#c@d:e")],
)
ParseDict(MEMBER, CHANGE.records[0].after)
ParseDict(MEMBER, CHANGE.records[1].before)
ParseDict({**MEMBER, "role": "admin", "etag": "2"}, CHANGE.records[1].after)
ParseDict(MEMBER, CHANGE.records[2].before)


def messages():
    return iter([pb.WatchChangesResponse(cursor="c1"), pb.WatchChangesResponse(cursor="c2", change=CHANGE)])


def test_people_read_what_became_of_each_record(pemba, api):
    api.answer("WatchChanges", messages())
    done = pemba("watch", "-t", TENANT_ID, "--workspace", ENG_ID, "--cursor", "c0")
    assert api.requests[0][1] == pb.WatchChangesRequest(tenant_id=TENANT_ID, workspace_id=ENG_ID, cursor="c0")
    named = f"workspace_id={ENG_ID} subject=user:bob"
    assert done.out.splitlines() == [
        "2023-11-14 22:13:20Z SetRole for user:alice",
        f"    new membership {named} role=member",
        f"    changed membership {named} role=admin",
        f"    gone membership {named} role=member",
        "    touch a:b#c@d:e",
    ]


def test_programs_read_every_message_with_its_cursor(pemba, api):
    api.answer("WatchChanges", messages())
    done = pemba("watch", "-t", TENANT_ID, "--user", "user:bob", "-o", "json")
    assert api.requests[0][1] == pb.WatchChangesRequest(tenant_id=TENANT_ID, user_id="bob")
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["cursor"], second["cursor"]) == ("c1", "c2")
    assert second["change"]["records"][1]["after"]["role"] == "admin"


def test_a_workspace_and_a_user_at_once_are_refused(pemba, api):
    done = pemba("watch", "-t", TENANT_ID, "--workspace", "/", "--user", "user:bob")
    assert done.code == 2
    assert "--workspace and --user" in done.err
