"""OperationsService: what it takes, and its answers field by field."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.model import Effect, ObjectRef, Operation, Scope, Seq, SubjectRef, TenantId, Tuple, TupleOperation
from pemba.rpc.authentication import Credential
from pemba.rpc.method import LONG_SECONDS
from pemba.rpc.server import Limits
from pemba.service.drift import Drift, Finding, Kind
from pemba.service.operations import ListedParked, RelayStatus, Retried
from pemba.service.outbox_tail import Committed, Delivered
from pemba.service.reconciliation import Options, Progress, Summary
from pemba.service.results import Page
from pemba.storage.outbox import ShardStatus, StreamStatus
from pemba.storage.outbox_tail import TailedRow
from pemba.storage.parked import Parked, Refusal
from pemba.v1 import operations_pb2
from pemba.v1.operations_pb2 import (
    GetRelayStatusRequest,
    ListParkedOperationsRequest,
    ReconcileRequest,
    RetryParkedRequest,
    TailOutboxRequest,
)

TENANT_ID = TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e6")
TUPLE = Tuple.parse(f"workspace:{TENANT_ID}/ws_1#admin@user:eve=40acme")
FINDING = Finding(
    Drift(Kind.TOO_MUCH, TUPLE, TENANT_ID),
    "acme",
    ObjectRef("workspace", "ws_1"),
    "acme/eng",
    SubjectRef("user", "eve@acme"),
    "",
)
SUMMARY = Summary(
    stored=9,
    projected=8,
    missing=1,
    too_much=2,
    foreign=3,
    undelivered=4,
    repaired=5,
    deletions_withheld=True,
    max_deletions=6,
    positions={TENANT_ID: Seq(7)},
)


async def test_a_reconciliation_is_told_as_it_goes_and_its_last_message_is_the_summary_with_a_token(running):
    running.operations.events = [Progress("store", 9), FINDING, SUMMARY]
    progress, finding, summary = await running.call("Reconcile", ReconcileRequest())
    assert (progress.progress.step, progress.progress.done) == ("store", 9)
    assert finding.finding == operations_pb2.ReconcileFinding(
        kind=operations_pb2.DRIFT_KIND_TOO_MUCH,
        tuple=str(TUPLE),
        tenant_id=TENANT_ID,
        tenant_slug="acme",
        object={"type": "workspace", "id": "ws_1"},
        object_name="acme/eng",
        relation="admin",
        subject={"type": "user", "id": "eve@acme"},
    )
    assert summary.token == "t9"
    assert {field.name: value for field, value in summary.summary.ListFields()} == {
        name: getattr(SUMMARY, name) for name in Summary.__slots__ if name != "positions"
    }


async def test_what_is_asked_for_reaches_the_service(running):
    await running.call("Reconcile", ReconcileRequest())
    await running.call("Reconcile", ReconcileRequest(tenant_id=TENANT_ID, apply=True, max_deletions=0, wait=True))
    assert [noted.arguments[1] for noted in running.operations.calls] == [
        Options(),
        Options(tenant_id=TENANT_ID, apply=True, max_deletions=0, wait=True),
    ]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ReconcileRequest(tenant_id="acme"), "tenant_id"),
        (ReconcileRequest(apply=True, max_deletions=-1), "max_deletions"),
        (ReconcileRequest(max_deletions=5), "max_deletions"),
        (ReconcileRequest(wait=True), "wait"),
        (ListParkedOperationsRequest(tenant_id="acme"), "tenant_id"),
        (ListParkedOperationsRequest(page_size=-1), "page_size"),
        (ListParkedOperationsRequest(order_by="seq"), "order_by"),
        (ListParkedOperationsRequest(filter="seq > 1"), "filter"),
        (RetryParkedRequest(tenant_id="acme"), "tenant_id"),
        (TailOutboxRequest(tenant_id="acme"), "tenant_id"),
        (TailOutboxRequest(since=Timestamp(seconds=-(10**12))), "since"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(running, request_, field):
    refusal = await running.refusal(type(request_).__name__.removesuffix("Request"), request_)
    assert (refusal.code, list(refusal.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert not running.operations.calls


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Reconcile", ReconcileRequest()),
        ("GetRelayStatus", GetRelayStatusRequest()),
        ("ListParkedOperations", ListParkedOperationsRequest()),
        ("RetryParked", RetryParkedRequest()),
        ("TailOutbox", TailOutboxRequest()),
    ],
)
async def test_it_takes_the_scope_admin(running, monkeypatch, method, request_):
    monkeypatch.setattr(
        "pemba.rpc.authentication.SystemKeys.find",
        lambda *_: Credential("key:1", frozenset(Scope) - {Scope.ADMIN}),
    )
    refusal = await running.refusal(method, request_)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert refusal.info.metadata["scope"] == "admin"
    assert not running.operations.calls


async def test_a_reconciliation_may_take_longer_than_any_other_call(serve, monkeypatch):
    running = await serve(Limits(default_deadline_seconds=0.05))
    the_other_is_over = asyncio.Event()

    async def never(*_, **__):
        await asyncio.Event().wait()

    async def patient(*_):
        await the_other_is_over.wait()
        yield SUMMARY

    running.operations.answers["get_relay_status"] = never
    monkeypatch.setattr(running.operations, "reconcile", patient)
    reconciling = asyncio.create_task(running.call("Reconcile", ReconcileRequest()))
    refusal = await running.refusal("GetRelayStatus", GetRelayStatusRequest())
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    the_other_is_over.set()
    assert len(await reconciling) == 1
    assert all(seconds >= 3600 for seconds in LONG_SECONDS.values())


async def test_the_relays_status_has_every_lane_and_the_streams_behind(running):
    at = datetime(2026, 11, 21, tzinfo=UTC)
    running.operations.answers["get_relay_status"] = RelayStatus(
        [ShardStatus(3, 7, 1, 5, 2.5)],
        [StreamStatus(TENANT_ID, 3, Seq(9), Seq(4), 5, 2.5, parked=2, closed=True)],
        at,
    )
    answer = await running.call("GetRelayStatus", GetRelayStatusRequest(limit=5))
    [shard], [stream] = answer.shards, answer.streams
    assert (shard.shard, shard.streams, shard.streams_behind, shard.undelivered, shard.oldest_seconds) == (
        3,
        7,
        1,
        5,
        2.5,
    )
    assert (stream.tenant_id, stream.shard, stream.head_seq, stream.delivered_seq) == (TENANT_ID, 3, 9, 4)
    assert (stream.parked, stream.closed) == (2, True)
    assert answer.reconcile_time.ToDatetime(UTC) == at
    assert running.operations.calls[0].options == {"limit": 5}
    await running.call("GetRelayStatus", GetRelayStatusRequest())
    assert running.operations.calls[1].options == {"limit": 100}


async def test_parked_operations_are_told_field_by_field(running):
    at = datetime(2026, 11, 21, tzinfo=UTC)
    parked = Parked(
        Refusal(
            TENANT_ID,
            Seq(9),
            TupleOperation(Operation.DELETE, TUPLE),
            Effect.RESTRICTS,
            "INVALID_SUBJECT_TYPE",
            "not allowed",
        ),
        Seq(4),
        6,
        at,
    )
    running.operations.answers["list_parked"] = Page((ListedParked(parked, "acme"),), "p2", "")
    request = ListParkedOperationsRequest(tenant_id=TENANT_ID, page_size=5, page_token="p1")
    answer = await running.call("ListParkedOperations", request)
    assert running.operations.calls[0].options == {"page_size": 5, "page_token": "p1"}
    assert running.operations.calls[0].arguments[1] == TENANT_ID
    assert answer.next_page_token == "p2"
    assert list(answer.parked_operations) == [
        operations_pb2.ParkedOperation(
            tenant_id=TENANT_ID,
            tenant_slug="acme",
            seq=9,
            since_seq=4,
            operation=operations_pb2.TUPLE_OPERATION_DELETE,
            tuple=str(TUPLE),
            effect=operations_pb2.PARKED_EFFECT_RESTRICTS,
            cause="INVALID_SUBJECT_TYPE",
            message="not allowed",
            park_time=Timestamp(seconds=int(at.timestamp())),
        )
    ]


async def test_a_retry_is_of_one_tenant_or_of_all(running):
    running.operations.answers["retry_parked"] = Retried(3, "t1")
    answer = await running.call("RetryParked", RetryParkedRequest())
    assert (answer.retried, answer.token) == (3, "t1")
    await running.call("RetryParked", RetryParkedRequest(tenant_id=TENANT_ID))
    assert [noted.arguments[1] for noted in running.operations.calls] == [None, TENANT_ID]


async def test_rows_are_followed_as_they_are_committed_and_delivered(running):
    at = datetime(2026, 11, 21, tzinfo=UTC)
    row = TailedRow(Seq(5), (TupleOperation(Operation.TOUCH, TUPLE),), "r-1", at)
    running.operations.tail = [Committed(TENANT_ID, row), Delivered(TENANT_ID, Seq(5))]
    since = Timestamp(seconds=1_700_000_000)
    committed, delivered = await running.call("TailOutbox", TailOutboxRequest(tenant_id=TENANT_ID, since=since))
    assert running.operations.calls[0].arguments[1:] == (TENANT_ID, since.ToDatetime(UTC))
    assert committed == operations_pb2.TailOutboxResponse(
        event=operations_pb2.OUTBOX_EVENT_COMMITTED,
        tenant_id=TENANT_ID,
        seq=5,
        create_time=Timestamp(seconds=int(at.timestamp())),
        request_id="r-1",
        operations=[{"operation": operations_pb2.TUPLE_OPERATION_TOUCH, "tuple": str(TUPLE)}],
    )
    assert delivered == operations_pb2.TailOutboxResponse(
        event=operations_pb2.OUTBOX_EVENT_DELIVERED, tenant_id=TENANT_ID, seq=5
    )
