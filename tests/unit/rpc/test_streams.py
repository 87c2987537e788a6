"""Streams: behind the same gate as single answers, and complete only where they end with OK."""

import asyncio

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from pemba.authorizer import Decision, Found, Lookup
from pemba.errors import Reason, Unavailable
from pemba.model import Scope
from pemba.rpc.authentication import Credential
from pemba.rpc.server import Limits
from pemba.v1.permissions_pb2 import LookupResourcesRequest, LookupSubjectsRequest
from pemba.v1.types_pb2 import ObjectRef, SubjectRef

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e7"
RESOURCE = ObjectRef(type="workspace", id="ws_01kafa7q0ve8x9m1t2b3c4d5e6")
SUBJECT = SubjectRef(type="user", id="alice")
AUTHORIZED = (("authorization", "Bearer " + "k" * 32),)
LOOK_UP = LookupResourcesRequest(tenant_id=TENANT_ID, type="workspace", permission="view", subject=SUBJECT)


def _lookup(found):
    async def answer(*_):
        return Lookup(None, "t1", found())

    return answer


async def test_a_stream_passes_the_same_gate_as_a_single_answer(serve, monkeypatch):
    running = await serve()
    refusal = await running.refusal("LookupResources", LOOK_UP, ("pemba-tenant", OTHER_TENANT_ID))
    assert list(refusal.violations) == ["tenant_id"]
    refusal = await running.refusal("LookupResources", LookupResourcesRequest())
    assert {"tenant_id", "type", "subject.type"} <= set(refusal.violations)
    monkeypatch.setattr(
        "pemba.rpc.authentication.SystemKeys.find",
        lambda *_: Credential("key:1", frozenset(Scope) - {Scope.CHECK}),
    )
    refusal = await running.refusal("LookupResources", LOOK_UP)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert not running.authorizer.calls


async def test_a_stream_that_fails_after_some_items_ends_with_the_error_and_its_details(running):
    def half():
        yield Found("ws_1", Decision.ALLOWED, (), "c1")
        raise Unavailable(Reason.SPICEDB_UNAVAILABLE, "SpiceDB cannot be reached", retry_seconds=2)

    running.authorizer.answers["lookup_resources"] = _lookup(half)
    call = running.stubs[0].LookupResources(LOOK_UP, metadata=AUTHORIZED, timeout=10)
    received = [(await call.read()).resource.id, (await call.read()).resource.id]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    info, retry = ErrorInfo(), RetryInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info), detail.Unpack(retry)
    assert received == ["", "ws_1"]
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.UNAVAILABLE, "SPICEDB_UNAVAILABLE")
    assert retry.retry_delay.seconds == 2


async def test_a_stream_that_nobody_reads_ends_with_the_callers_deadline_and_without_complaint(running, caplog):
    ended = asyncio.Event()

    def endless():
        try:
            while True:
                yield Found("x" * 10_000, Decision.ALLOWED, (), "c")
        finally:
            ended.set()

    running.authorizer.answers["lookup_resources"] = _lookup(endless)
    call = running.stubs[0].LookupResources(LOOK_UP, metadata=AUTHORIZED, timeout=0.5)
    await call.read()
    await asyncio.wait_for(ended.wait(), 10)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_without_a_deadline_the_longest_one_holds_for_a_stream_too(serve):
    async def for_ever(*_):
        await asyncio.Event().wait()

    running = await serve(Limits(default_deadline_seconds=0.1))
    running.authorizer.answers["lookup_resources"] = for_ever
    refusal = await running.refusal("LookupResources", LOOK_UP, timeout=None)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_client_that_goes_away_ends_the_work(running):
    began, ended = asyncio.Event(), asyncio.Event()

    async def held(*_):
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running.authorizer.answers["lookup_subjects"] = held
    request = LookupSubjectsRequest(tenant_id=TENANT_ID, resource=RESOURCE, permission="view", subject_type="user")
    call = running.stubs[0].LookupSubjects(request, metadata=AUTHORIZED, timeout=10)
    reading = asyncio.ensure_future(call.read())
    await asyncio.wait_for(began.wait(), 10)
    call.cancel()
    await asyncio.wait_for(ended.wait(), 10)
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_streams_are_counted_like_every_call(running):
    labels = {"method": "pemba.v1.PermissionService.LookupResources", "code": "OK"}
    before = REGISTRY.get_sample_value("pemba_rpc_seconds_count", labels) or 0
    await running.call("LookupResources", LOOK_UP)
    assert REGISTRY.get_sample_value("pemba_rpc_seconds_count", labels) == before + 1
