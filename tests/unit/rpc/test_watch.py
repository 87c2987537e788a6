"""WatchService: what it takes, and its answers field by field."""

import uuid
from datetime import UTC, datetime

import pytest
from google.protobuf.json_format import MessageToDict

from pemba.authorizer.ground import Position, Snapshot
from pemba.errors import RateLimited, Reason
from pemba.model import Operation, Seq, TenantId, TenantStatus, Tuple, TupleOperation, UserId, WorkspaceId
from pemba.service.watch import Positions, Watched
from pemba.service.watch_places import WatchPlaces
from pemba.service.watched import About
from pemba.storage.changes import ChangeRow
from pemba.v1 import errors_pb2, watch_pb2
from pemba.v1.watch_pb2 import WatchChangesRequest, WatchPositionsRequest

TENANT_ID = TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e6")
WORKSPACE_ID = WorkspaceId("ws_01kafa7q0ve8x9m1t2b3c4d5e6")
OTHER_ID = WorkspaceId("ws_01kafa7q0ve8x9m1t2b3c4d5e7")
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
EPOCH = uuid.UUID(int=1)


def member(workspace_id, user, role="viewer"):
    subject = {"type": "user", "id": user, "relation": ""}
    return {"workspace_id": workspace_id, "subject": subject, "role": role, "join_time": "2026"}


def touch(workspace_id, user):
    return TupleOperation(Operation.TOUCH, Tuple.parse(f"workspace:{TENANT_ID}/{workspace_id}#viewer@user:{user}"))


def row(before, after, *operations):
    return ChangeRow(Seq(5), 0, 1, NOW, "alice", "SetRoles", before, after, False, operations)


TWO = row(
    [member(WORKSPACE_ID, "bob")],
    [member(WORKSPACE_ID, "bob", "admin"), member(OTHER_ID, "carol")],
    touch(WORKSPACE_ID, "bob"),
    touch(OTHER_ID, "carol"),
)
OF_WORKSPACE, OF_BOB, OF_ALL = (
    About(TENANT_ID, workspace_id=WORKSPACE_ID),
    About(TENANT_ID, user_id=UserId("bob")),
    About(TENANT_ID),
)


async def test_a_change_is_told_field_by_field_and_progress_without_one(running):
    running.watch.streams["changes"] = [
        Watched(None, "c1", "", Reason.TENANT_PARKED),
        Watched(TWO, "c2", "t2"),
    ]
    request = WatchChangesRequest(tenant_id=TENANT_ID, workspace_id=WORKSPACE_ID, cursor="c0")
    progress, changed = await running.call("WatchChanges", request)
    assert running.watch.calls[0].arguments[1:] == (OF_WORKSPACE, "c0")
    assert (progress.cursor, progress.held_back) == ("c1", errors_pb2.ERROR_REASON_TENANT_PARKED)
    assert not progress.HasField("change")
    assert MessageToDict(changed, preserving_proto_field_name=True) == {
        "cursor": "c2",
        "change": {
            "method": "SetRoles",
            "create_time": "2026-11-21T09:30:00Z",
            "acting_user": "alice",
            "token": "t2",
            "part": 1,
            "parts": 1,
            "records": [
                {
                    "type": "membership",
                    "before": member(WORKSPACE_ID, "bob"),
                    "after": member(WORKSPACE_ID, "bob", "admin"),
                }
            ],
            "operations": [{"operation": "TUPLE_OPERATION_TOUCH", "tuple": str(touch(WORKSPACE_ID, "bob").tuple)}],
        },
    }


@pytest.mark.parametrize(
    ("given", "about"),
    [({"workspace_id": WORKSPACE_ID}, OF_WORKSPACE), ({"user_id": "bob"}, OF_BOB), ({}, OF_ALL)],
)
async def test_a_workspace_a_user_or_all_of_the_tenant_is_watched(running, given, about):
    await running.call("WatchChanges", WatchChangesRequest(tenant_id=TENANT_ID, **given))
    assert running.watch.calls[0].arguments[1] == about


async def test_an_empty_workspace_is_not_all_of_the_tenant(running):
    refusal = await running.refusal("WatchChanges", WatchChangesRequest(tenant_id=TENANT_ID, workspace_id=""))
    assert list(refusal.violations) == ["workspace_id"]
    refusal = await running.refusal("WatchChanges", WatchChangesRequest(tenant_id=TENANT_ID, user_id=""))
    assert list(refusal.violations) == ["user_id"]


def test_each_sees_the_records_and_tuples_of_what_they_watch_alone():
    assert [(each.kind, each.after["role"]) for each in OF_WORKSPACE.records(TWO)] == [("membership", "admin")]
    assert OF_WORKSPACE.operations(TWO) == [touch(WORKSPACE_ID, "bob")]
    assert OF_BOB.records(TWO) == OF_WORKSPACE.records(TWO)
    assert About(TENANT_ID, user_id=UserId("eve")).records(TWO) == []
    assert len(OF_ALL.records(TWO)) == 2
    assert OF_ALL.operations(TWO) == list(TWO.operations)


def test_a_record_of_no_known_kind_and_one_that_did_not_change_are_told_to_nobody():
    same = member(WORKSPACE_ID, "bob")
    secret = {"workspace_id": WORKSPACE_ID, "value": "hush"}
    assert OF_ALL.records(row([same, secret], [same, {**secret, "value": "other"}])) == []


def test_a_share_is_seen_from_both_sides_and_a_group_by_its_members():
    share = {"id": "shr_1", "workspace_id": WORKSPACE_ID, "with_workspace_id": OTHER_ID, "role": "viewer"}
    seat = {"group_id": "grp_1", "subject": {"type": "user", "id": "bob"}, "manager": False}
    shared = row(None, share)
    assert [each.kind for each in OF_WORKSPACE.records(shared)] == ["share"]
    assert [each.kind for each in About(TENANT_ID, workspace_id=OTHER_ID).records(shared)] == ["share"]
    assert [each.kind for each in OF_BOB.records(row(None, [seat]))] == ["group_member"]
    assert OF_BOB.records(shared) == []


async def test_positions_are_told_with_the_lives_that_they_are_of(running):
    position = Position(TenantStatus.ACTIVE, Seq(7), None, 3)
    closed = Position(TenantStatus.ACTIVE, Seq(8), None, 4, closed=True, parked_from=Seq(1))
    snapshot = Snapshot(EPOCH, uuid.UUID(int=2), {}, frozenset(), Seq(9), True)
    running.watch.streams["positions"] = [
        Positions(snapshot, {TENANT_ID: position}),
        Positions(snapshot, {TENANT_ID: closed}),
        Positions(snapshot, {}),
    ]
    running.watch.token = lambda *_: "t7"
    first, second, last = await running.call("WatchPositions", WatchPositionsRequest(tenant_ids=[TENANT_ID]))
    assert (first.database_epoch, first.store_epoch, first.statuses_seq) == (str(EPOCH), str(uuid.UUID(int=2)), 9)
    assert list(first.positions) == [
        watch_pb2.TenantPosition(tenant_id=TENANT_ID, delivered_seq=7, token="t7", serial=3)
    ]
    assert second.positions[0].serial == 0, "nothing of a tenant whose checks are closed lasts"
    assert not last.positions


@pytest.mark.parametrize("ids", [[], [TENANT_ID] * 101, ["x"]])
async def test_positions_take_1_to_100_tenants(running, ids):
    refusal = await running.refusal("WatchPositions", WatchPositionsRequest(tenant_ids=ids))
    assert list(refusal.violations) in (["tenant_ids"], ["tenant_ids[0]"])


async def test_who_watches_too_much_is_told_when_to_come_back(running):
    async def changes(*_):
        raise RateLimited("enough", 5)
        yield

    running.watch.streams.pop("changes")
    running.watch.changes = changes
    refusal = await running.refusal("WatchChanges", WatchChangesRequest(tenant_id=TENANT_ID))
    assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert refusal.details["RetryInfo"].retry_delay.seconds == 5


class TestPlaces:
    @staticmethod
    def caller(name):
        from pemba.model import Caller

        return Caller(name, frozenset(), None, None, "", "")

    def test_one_caller_takes_a_fifth_and_no_more(self):
        places, alice = WatchPlaces(10), self.caller("alice")
        with places.taken(alice):
            with places.taken(alice), pytest.raises(RateLimited, match="2 watches"), places.taken(alice):
                pass
            with places.taken(alice), places.taken(self.caller("bob")):
                pass

    def test_all_together_take_no_more_than_there_are(self):
        places = WatchPlaces(2)
        a, b, c = (places.taken(self.caller(name)) for name in "abc")
        with a, b, pytest.raises(RateLimited, match="all 2"), c:
            pass
        with places.taken(self.caller("c")):
            pass
