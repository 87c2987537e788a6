"""What every call goes through, seen from a client of a real server."""

import asyncio

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.model import Credential, Scope
from pemba.rpc.authentication import Authentication, SystemKeys
from pemba.rpc.limits import Admission
from pemba.rpc.server import SERVICES, Limits, build_server
from pemba.service.key_secrets import new_secret
from pemba.v1.permissions_pb2 import BatchCheckItem, BatchCheckRequest, CheckRequest
from pemba.v1.tenants_pb2 import CreateTenantRequest, GetTenantRequest, ListTenantsRequest, SuspendTenantRequest
from pemba.v1.types_pb2 import ObjectRef, SubjectRef
from pemba.v1.workspaces_pb2 import ArchiveWorkspaceRequest, GetWorkspaceRequest

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e7"
WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e6"
OTHER_WORKSPACE_ID = "ws_01kafa7q0ve8x9m1t2b3c4d5e7"
GET = GetTenantRequest(tenant_id=TENANT_ID)
METHODS = [method for service in SERVICES for method in service.methods]
SUBJECT = SubjectRef(type="user", id="alice")
RESOURCE = ObjectRef(type="workspace", id=WORKSPACE_ID)


# -- who is calling ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer " + "x" * 32, f"Bearer {new_secret().text}"],
    ids=["no key", "wrong key", "unknown API key"],
)
async def test_no_method_answers_without_a_key(running, method, authorization):
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = () if authorization is None else (("authorization", authorization),)
    if method.server_streaming:
        answer = running.channel.unary_stream(path)(b"", metadata=metadata, timeout=10).read()
    else:
        answer = running.channel.unary_unary(path)(b"", metadata=metadata, timeout=10)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not running.called()


async def test_a_refused_key_has_the_reason_and_the_callers_request_id(running):
    refusal = await running.refusal("GetTenant", GET, ("x-request-id", "r-1"), authorization=None)
    assert (refusal.reason, refusal.info.metadata["request_id"]) == ("KEY_INVALID", "r-1")


async def test_the_key_is_looked_at_before_the_message(running):
    call = running.channel.unary_unary("/pemba.v1.TenantService/GetTenant")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_every_system_key_of_the_list_is_good(running):
    await running.call("GetTenant", GET, authorization="Bearer " + "l" * 32)
    assert running.tenants.calls[0].arguments[0].principal.startswith("system_key:")


async def test_a_key_without_the_scope_of_the_method_is_refused_by_its_name(running, monkeypatch):
    monkeypatch.setattr(
        "pemba.rpc.authentication.SystemKeys.find",
        lambda *_: Credential("key:1", frozenset(Scope) - {Scope.WRITE}),
    )
    refusal = await running.refusal("SuspendTenant", SuspendTenantRequest(tenant_id=TENANT_ID))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert refusal.info.metadata["scope"] == "write"
    assert await running.call("GetTenant", GET)


async def test_the_caller_is_who_the_metadata_say(running):
    await running.call("GetTenant", GET, ("pemba-on-behalf-of", "user:al%C3%ADce"), ("x-request-id", "r-7"))
    caller = running.tenants.calls[0].arguments[0]
    assert (caller.acting_user, caller.request_id, caller.tenant_id) == ("alíce", "r-7", None)
    assert caller.scopes == frozenset(Scope)
    assert caller.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize(
    ("key", "value"),
    [("pemba-on-behalf-of", "alice"), ("pemba-tenant", "acme"), ("pemba-workspace", "root"), ("pemba-tenant", "%zz")],
)
async def test_malformed_context_is_refused_by_the_name_of_its_key(running, key, value):
    refusal = await running.refusal("GetTenant", GET, (key, value))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [key]
    assert not running.tenants.calls


# -- the tenant and workspace of the metadata -------------------------------------------------------------


async def test_the_tenant_of_the_metadata_stands_in_for_an_empty_one(running):
    await running.call("SuspendTenant", SuspendTenantRequest(), ("pemba-tenant", TENANT_ID))
    await running.call("GetTenant", GetTenantRequest(), ("pemba-tenant", TENANT_ID))
    assert running.tenants.calls[0].arguments[1] == TENANT_ID
    assert running.tenants.calls[1].options == {"tenant_id": TENANT_ID, "slug": None}


async def test_a_message_that_names_another_tenant_than_the_metadata_is_refused(running):
    for method, request in (("SuspendTenant", SuspendTenantRequest(tenant_id=OTHER_TENANT_ID)), ("GetTenant", GET)):
        context = OTHER_TENANT_ID if method == "GetTenant" else TENANT_ID
        refusal = await running.refusal(method, request, ("pemba-tenant", context))
        assert list(refusal.violations) == ["tenant_id"]
    assert not running.tenants.calls


async def test_a_slug_of_another_tenant_than_the_metadata_is_refused(running):
    request = GetTenantRequest(slug="acme")
    assert (await running.call("GetTenant", request, ("pemba-tenant", TENANT_ID))).tenant.id == TENANT_ID
    assert running.tenants.calls[0].options == {"tenant_id": None, "slug": "acme"}
    refusal = await running.refusal("GetTenant", request, ("pemba-tenant", OTHER_TENANT_ID))
    assert list(refusal.violations) == ["slug"]


async def test_a_message_that_names_another_workspace_than_the_metadata_is_refused(running):
    context = ("pemba-workspace", OTHER_WORKSPACE_ID)
    request = ArchiveWorkspaceRequest(tenant_id=TENANT_ID, workspace_id=WORKSPACE_ID)
    refusal = await running.refusal("ArchiveWorkspace", request, context)
    assert list(refusal.violations) == ["workspace_id"]
    by_path = GetWorkspaceRequest(tenant_id=TENANT_ID, path="eng")
    refusal = await running.refusal("GetWorkspace", by_path, context)
    assert list(refusal.violations) == ["path"]


async def test_an_item_of_a_batch_that_names_another_tenant_than_the_metadata_has_an_error(running):
    item = BatchCheckItem(tenant_id=OTHER_TENANT_ID, resource=RESOURCE, permission="view", subject=SUBJECT)
    request = BatchCheckRequest(items=[item])
    response = await running.call("BatchCheck", request, ("pemba-tenant", TENANT_ID))
    assert response.results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert not running.authorizer.calls


# -- limits -----------------------------------------------------------------------------------------------


async def test_a_message_beyond_the_limit_is_refused(serve):
    running = await serve(Limits(max_message_bytes=4096))
    refusal = await running.refusal("CreateTenant", CreateTenantRequest(name="x" * 5000))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not running.tenants.calls


async def test_what_is_no_message_is_an_invalid_argument(running):
    call = running.channel.unary_unary("/pemba.v1.TenantService/GetTenant")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff\xff", metadata=(("authorization", "Bearer " + "k" * 32),), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_beyond_the_limit_of_concurrent_ones_are_refused_at_once(serve):
    running = await serve(Limits(max_concurrent_rpcs=2))
    entered, leave = asyncio.Semaphore(0), asyncio.Event()

    async def held(*_, **__):
        entered.release()
        await leave.wait()
        return answer

    answer = running.tenants.answers["get_tenant"]
    running.tenants.answers["get_tenant"] = held
    calls = [asyncio.ensure_future(running.call("GetTenant", GET)) for _ in range(2)]
    for _ in calls:
        await asyncio.wait_for(entered.acquire(), 10)
    refusal = await running.refusal("GetTenant", GET)
    leave.set()
    await asyncio.gather(*calls)
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_second_server_on_the_same_port_is_refused(running):
    unlimited = Admission(max_calls_of_a_caller=1000)
    services = running.services
    with pytest.raises(OSError, match=f"127.0.0.1:{running.rpc.port}"):
        build_server(
            f"127.0.0.1:{running.rpc.port}",
            services,
            Authentication(SystemKeys([]), running.keys, unlimited),
            unlimited,
            lambda: None,
            Limits(),
        )


# -- deadlines --------------------------------------------------------------------------------------------


async def test_the_callers_deadline_is_handed_on(running):
    loop = asyncio.get_running_loop()
    request = CheckRequest(tenant_id=TENANT_ID, resource=RESOURCE, permission="view", subject=SUBJECT)
    await running.call("Check", request, timeout=5)
    deadline = running.authorizer.calls[0].arguments[4]
    assert deadline == pytest.approx(loop.time() + 5, abs=1)


async def test_without_a_deadline_the_longest_one_holds(serve):
    running = await serve(Limits(default_deadline_seconds=0.1))
    running.tenants.answers["get_tenant"] = _for_ever
    refusal = await running.refusal("GetTenant", GET, timeout=None)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")


async def test_a_deadline_of_a_tenth_of_a_second_is_kept_and_ends_the_work(running):
    ended = asyncio.Event()

    async def held(*_, **__):
        try:
            await _for_ever()
        finally:
            ended.set()

    running.tenants.answers["get_tenant"] = held
    refusal = await running.refusal("GetTenant", GET, timeout=0.1)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(ended.wait(), 10)


# -- errors -----------------------------------------------------------------------------------------------


async def test_an_error_of_a_service_reaches_the_client_with_its_details(running):
    async def refuse(*_, **__):
        raise PreconditionFailed(Reason.HAS_CHILDREN, "it has children: é", {"n": "2"})

    running.tenants.answers["get_tenant"] = refuse
    refusal = await running.refusal("GetTenant", GET)
    assert (refusal.code, refusal.message) == (grpc.StatusCode.FAILED_PRECONDITION, "it has children: é")
    assert (refusal.reason, refusal.info.domain, refusal.info.metadata["n"]) == ("HAS_CHILDREN", "pemba", "2")
    assert refusal.details["PreconditionFailure"].violations[0].type == "HAS_CHILDREN"


async def test_the_largest_error_there_can_be_reaches_the_client(running):
    request = CreateTenantRequest(slug="é" * 3000, name="\U0001f30b" * 3000, first_admin="é" * 3000)
    refusal = await running.refusal("CreateTenant", request, ("x-request-id", "r" * 128))
    assert set(refusal.violations) == {"slug", "name", "first_admin"}


async def test_an_unknown_error_is_generic_for_the_caller_and_logged_once_with_its_cause(running):
    async def fail(*_, **__):
        raise KeyError("hunter2")

    running.tenants.answers["get_tenant"] = fail
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as logs:
        refusal = await running.refusal("GetTenant", GET, ("x-request-id", "r-9"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "hunter2" not in refusal.message
    failed = [line for line in logs if line["event"] == "rpc_failed"]
    assert [(line["request_id"], line["exc_info"]) for line in failed] == [("r-9", True)]


async def test_until_it_is_ready_every_call_is_unavailable(serve):
    ready = False

    def readiness():
        if not ready:
            raise Unavailable(Reason.SCHEMA_MISMATCH, "the schema is older than this version")

    running = await serve(readiness=readiness)
    refusal = await running.refusal("GetTenant", GET)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SCHEMA_MISMATCH")
    assert "RetryInfo" in refusal.details
    ready = True
    assert await running.call("GetTenant", GET)


# -- logs and metrics -------------------------------------------------------------------------------------


async def test_the_log_context_of_concurrent_calls_is_each_ones_own(serve):
    with structlog.contextvars.bound_contextvars(request_id="of the start", process="serve"):
        running = await serve()
    seen = []
    together = asyncio.Barrier(20)
    answer = running.tenants.answers["get_tenant"]

    async def note(caller, **_):
        before = structlog.contextvars.get_contextvars()
        await together.wait()
        seen.append((caller.request_id, before, structlog.contextvars.get_contextvars()))
        return answer

    running.tenants.answers["get_tenant"] = note
    await asyncio.gather(*(running.call("GetTenant", GET, ("x-request-id", f"r-{i}")) for i in range(20)))
    assert {request_id for request_id, *_ in seen} == {f"r-{i}" for i in range(20)}
    for request_id, before, after in seen:
        assert before == after == {"request_id": request_id, "method": "/pemba.v1.TenantService/GetTenant"}
    assert structlog.contextvars.get_contextvars() == {}


async def test_calls_are_counted_by_method_and_code(running):
    def count(code):
        labels = {"method": "pemba.v1.TenantService.ListTenants", "code": code}
        return REGISTRY.get_sample_value("pemba_rpc_seconds_count", labels)

    before = count("OK"), count("UNAUTHENTICATED")
    await running.call("ListTenants", ListTenantsRequest())
    await running.refusal("ListTenants", ListTenantsRequest(), authorization=None)
    assert (count("OK"), count("UNAUTHENTICATED")) == (before[0] + 1, before[1] + 1)


# -- health and reflection --------------------------------------------------------------------------------


async def test_health_needs_no_key_and_says_when_it_serves(running):
    stub = health_pb2_grpc.HealthStub(running.channel)

    async def status(name):
        return (await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)).status

    kinds = health_pb2.HealthCheckResponse
    assert {await status(""), await status("pemba.v1.PermissionService")} == {kinds.NOT_SERVING}
    await running.rpc.set_serving(True)
    assert {await status(""), await status("pemba.v1.PermissionService")} == {kinds.SERVING}


async def test_a_stopping_server_says_so_and_lets_calls_end(running):
    entered, leave = asyncio.Event(), asyncio.Event()

    async def held(*_, **__):
        entered.set()
        await leave.wait()
        return answer

    answer = running.tenants.answers["get_tenant"]
    running.tenants.answers["get_tenant"] = held
    call = asyncio.ensure_future(running.call("GetTenant", GET))
    await asyncio.wait_for(entered.wait(), 10)
    stop = asyncio.ensure_future(running.rpc.stop(10))
    leave.set()
    assert (await call).tenant.id == TENANT_ID
    await asyncio.wait_for(stop, 10)


@pytest.mark.parametrize("enabled", [True, False])
async def test_reflection_names_the_services_where_it_is_on(serve, enabled):
    running = await serve(reflection=enabled)
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    call = stub.ServerReflectionInfo(timeout=10)
    try:
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        answer = None
    names = {service.name for service in answer.list_services_response.service} if answer else set()
    assert ({service.full_name for service in SERVICES} <= names) is enabled


async def _for_ever(*_, **__):
    await asyncio.Event().wait()
