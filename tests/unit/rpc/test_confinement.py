"""What a key is good for, and confined to, holds for every method there is."""

import asyncio

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from pemba.errors import Reason, Unauthenticated
from pemba.model import Scope
from pemba.rpc import method as method_module
from pemba.rpc.scopes import SCOPES
from pemba.rpc.server import SERVICES
from pemba.service.key_secrets import new_secret
from pemba.v1.api_keys_pb2 import CreateApiKeyRequest
from pemba.v1.permissions_pb2 import BatchCheckItem, BatchCheckRequest, LookupResourcesRequest
from pemba.v1.tenants_pb2 import GetTenantRequest, SuspendTenantRequest
from pemba.v1.types_pb2 import ObjectRef, SubjectRef
from pemba.v1.watch_pb2 import WatchChangesRequest
from tests.unit.rpc.conftest import OTHER_TENANT_ID, TENANT_ID, WORKSPACE_ID

METHODS = [method for service in SERVICES for method in service.methods]
OF_ONE_TENANT = [method for method in METHODS if "tenant_id" in method.input_type.fields_by_name]
GET = GetTenantRequest(tenant_id=TENANT_ID)


def name_of(method):
    return method.full_name


def scope_of(method):
    return SCOPES[f"/{method.containing_service.full_name}/{method.name}"]


def empty(method):
    return GetMessageClass(method.input_type)()


def with_key(secret):
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("method", METHODS, ids=name_of)
async def test_a_key_without_the_scope_of_a_method_is_refused_by_the_scope(running, method):
    secret = running.keys.issue(*(set(Scope) - {scope_of(method)}))
    refusal = await running.refusal(method.name, empty(method), **with_key(secret))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert refusal.info.metadata["scope"] == scope_of(method)
    assert not running.called()


@pytest.mark.parametrize("method", METHODS, ids=name_of)
@pytest.mark.parametrize("reason", [Reason.KEY_REVOKED, Reason.KEY_EXPIRED])
async def test_a_key_that_has_ended_opens_no_method(running, method, reason):
    secret = running.keys.issue(*Scope)
    running.keys.known[secret] = Unauthenticated(reason, "authorization: no more")
    refusal = await running.refusal(method.name, empty(method), **with_key(secret))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert not running.called()


@pytest.mark.parametrize("method", OF_ONE_TENANT, ids=name_of)
@pytest.mark.parametrize("where", ["message", "metadata"])
async def test_another_tenant_is_not_found_to_a_tenants_key_whatever_it_asks(running, method, where):
    secret = running.keys.issue(*Scope, tenant_id=TENANT_ID)
    request, metadata = empty(method), ()
    if where == "message":
        request.tenant_id = OTHER_TENANT_ID
    else:
        metadata = (("pemba-tenant", OTHER_TENANT_ID),)
    refusal = await running.refusal(method.name, request, *metadata, **with_key(secret))
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    assert refusal.message == f"tenant {OTHER_TENANT_ID} was not found"
    assert not running.called()


async def test_a_tenants_key_may_leave_its_tenant_out(running):
    authorization = with_key(running.keys.issue(*Scope, tenant_id=TENANT_ID))
    await running.call("SuspendTenant", SuspendTenantRequest(), **authorization)
    await running.call("GetTenant", GetTenantRequest(), **authorization)
    await running.call("CreateApiKey", CreateApiKeyRequest(name="CI", scopes=["read"]), **authorization)
    assert running.tenants.calls[0].arguments[1] == TENANT_ID
    assert running.tenants.calls[1].options == {"tenant_id": TENANT_ID, "slug": None}
    assert running.api_keys.calls[0].arguments[1].tenant_id == TENANT_ID


async def test_what_is_no_tenants_id_is_refused_by_its_field(running):
    authorization = with_key(running.keys.issue(*Scope, tenant_id=TENANT_ID))
    refusal = await running.refusal("SuspendTenant", SuspendTenantRequest(tenant_id="acme"), **authorization)
    assert list(refusal.violations) == ["tenant_id"]


async def test_an_item_of_another_tenant_is_not_found_and_the_others_are_answered(running):
    def item(tenant_id):
        workspace, alice = ObjectRef(type="workspace", id=WORKSPACE_ID), SubjectRef(type="user", id="alice")
        return BatchCheckItem(tenant_id=tenant_id, resource=workspace, permission="view", subject=alice)

    authorization = with_key(running.keys.issue(Scope.CHECK, tenant_id=TENANT_ID))
    request = BatchCheckRequest(items=[item(OTHER_TENANT_ID), item("")])
    response = await running.call("BatchCheck", request, **authorization)
    assert response.results[0].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert not response.results[1].HasField("error")
    [call] = running.authorizer.calls
    assert [tenant_id for tenant_id, _ in call.arguments[1]] == [TENANT_ID]


async def test_the_caller_is_whom_its_key_says(running):
    confined = {"tenant_id": TENANT_ID, "workspace_id": WORKSPACE_ID, "user_id": "alice"}
    await running.call("GetTenant", GET, **with_key(running.keys.issue(Scope.READ, **confined)))
    caller = running.tenants.calls[0].arguments[0]
    assert (caller.principal, caller.scopes) == ("api_key:key_1", {Scope.READ})
    assert (caller.tenant_id, caller.workspace_id, caller.acting_user) == (TENANT_ID, WORKSPACE_ID, "alice")
    assert not caller.is_system


async def test_a_users_key_acts_for_its_user_and_for_nobody_else_whatever_its_scopes(running):
    authorization = with_key(running.keys.issue(*Scope, user_id="alice"))
    await running.call("GetTenant", GET, ("pemba-on-behalf-of", "user:alice"), **authorization)
    assert running.tenants.calls[0].arguments[0].acting_user == "alice"
    refusal = await running.refusal("GetTenant", GET, ("pemba-on-behalf-of", "user:bob"), **authorization)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert len(running.tenants.calls) == 1


async def test_a_key_acts_for_users_by_a_scope_of_its_own(running):
    on_behalf = ("pemba-on-behalf-of", "user:bob")
    without = with_key(running.keys.issue(Scope.READ, tenant_id=TENANT_ID))
    assert (await running.refusal("GetTenant", GET, on_behalf, **without)).reason == "SCOPE_MISSING"
    await running.call("GetTenant", GET, on_behalf, **with_key(running.keys.issue(Scope.READ, Scope.ACT_AS)))
    assert running.tenants.calls[0].arguments[0].acting_user == "bob"


async def test_a_stream_ends_when_its_key_does(running, monkeypatch):
    monkeypatch.setattr(method_module, "RECHECK_SECONDS", 0.0)
    secret = running.keys.issue(Scope.CHECK)
    lookup = running.authorizer.answers["lookup_resources"]

    async def revoked_meanwhile(*arguments):
        running.keys.known[secret] = Unauthenticated(Reason.KEY_REVOKED, "authorization: the key was revoked")
        return await lookup(*arguments)

    running.authorizer.answers["lookup_resources"] = revoked_meanwhile
    alice = SubjectRef(type="user", id="alice")
    request = LookupResourcesRequest(tenant_id=TENANT_ID, type="workspace", permission="view", subject=alice)
    refusal = await running.refusal("LookupResources", request, **with_key(secret))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")


async def test_a_stream_that_has_nothing_to_tell_ends_when_its_key_does(running, monkeypatch):
    monkeypatch.setattr(method_module, "RECHECK_SECONDS", 0.01)
    secret = running.keys.issue(Scope.CHECK)
    closed = asyncio.Event()

    async def idle(*_):
        running.keys.known[secret] = Unauthenticated(Reason.KEY_REVOKED, "authorization: the key was revoked")
        try:
            await asyncio.Event().wait()
        finally:
            closed.set()
        yield

    monkeypatch.setattr(running.watch, "changes", idle, raising=False)
    request = WatchChangesRequest(tenant_id=TENANT_ID, workspace_id=WORKSPACE_ID)
    refusal = await running.refusal("WatchChanges", request, **with_key(secret))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED")
    assert closed.is_set()


async def test_a_refused_secret_is_in_no_answer(running):
    secret = new_secret().text
    refusal = await running.refusal("GetTenant", GET, **with_key(secret))
    assert secret not in str(refusal.details) + refusal.message
