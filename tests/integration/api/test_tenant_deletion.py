"""A tenant that is deleted, over gRPC: every method answers as about one that never was, meanwhile and after."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from pemba.service.tenant_deletion import TenantDeletions
from pemba.v1 import permissions_pb2, tenants_pb2, types_pb2
from tests.integration.api.test_api_keys import ALL, METHODS, OF_USERS, World, world
from tests.truth import eventually

__all__ = ["world"]

CODE = grpc.StatusCode
# About streams, which outlive their tenants, and the deletion itself.
STILL_ANSWERED = {
    "Reconcile",
    "ListParkedOperations",
    "RetryParked",
    "TailOutbox",
    "GetRelayStatus",
    "GetTenantDeletion",
}
# Who did what there is kept, for system keys.
OF_WHO_DID_WHAT = {"ListAuditEvents", "ExportAuditEvents"}
# Of users, who belong to no tenant: what they have in one is left out.
OF_ONE_USER = {"ListUserMemberships"}


async def answer(world: World, method, request, metadata):
    """(code, the answer); of a stream its first message."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    body = request.SerializeToString()
    parse = GetMessageClass(method.output_type).FromString
    try:
        if method.server_streaming:
            stream = world.api.channel.unary_stream(path, response_deserializer=parse)
            return CODE.OK, await stream(body, metadata=metadata, timeout=10).read()
        unary = world.api.channel.unary_unary(path, response_deserializer=parse)
        return CODE.OK, await unary(body, metadata=metadata, timeout=10)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()


async def delete(world: World) -> tenants_pb2.DeleteTenantResponse:
    request = tenants_pb2.DeleteTenantRequest(tenant_id=world.tenant.id, confirm_slug="acme")
    return await world.api.tenants.DeleteTenant(request, metadata=world.api.metadata())


async def deletion(world: World) -> tenants_pb2.TenantDeletion:
    request = tenants_pb2.GetTenantDeletionRequest(slug="acme")
    return (await world.api.tenants.GetTenantDeletion(request, metadata=world.api.metadata())).deletion


async def is_gone(world: World) -> bool:
    now = await deletion(world)
    return now.HasField("finish_time") and now.undelivered_rows == 0


async def test_no_method_finds_it_whoever_asks(world: World, monkeypatch) -> None:
    api, tenant_id = world.api, world.tenant.id
    step = TenantDeletions.run_once

    async def nothing(_) -> bool:
        return False

    monkeypatch.setattr(TenantDeletions, "run_once", nothing)
    await world.key("its own", ALL, tenant_id=tenant_id)
    await world.key("alice's", OF_USERS, user_id="alice")
    callers = {
        "system": api.metadata(),
        "system for alice": api.metadata(pemba_on_behalf_of="user:alice"),
        "its own": world.metadata("its own"),
        "its own for alice": world.metadata("its own", pemba_on_behalf_of="user:alice"),
        "alice's": world.metadata("alice's"),
    }
    asked = [
        (method, world.request(method))
        for method in METHODS
        if "tenant_id" in method.input_type.fields_by_name and method.name not in STILL_ANSWERED | OF_ONE_USER
    ]
    assert len(asked) > 40
    await delete(world)
    for state in ("under way", "over"):
        wrong = []
        for method, request in asked:
            for name, metadata in callers.items():
                code, said = await answer(world, method, request, metadata)
                expected = {CODE.NOT_FOUND}
                if method.name == "DeleteTenant" and name != "system":
                    expected = {CODE.PERMISSION_DENIED}
                if state == "over" and name.startswith("its own"):
                    expected = {CODE.UNAUTHENTICATED}  # the key went with its tenant
                if method.name in OF_WHO_DID_WHAT and name == "system":
                    expected = {CODE.OK}
                told_of_oneself = method.name in ("Check", "CheckAll", "LookupResources") and "alice" in name
                if (told_of_oneself or method.name == "BatchCheck") and code is CODE.OK:
                    assert is_denied(said), (method.name, name, said)
                elif code not in expected:
                    wrong.append(f"{state}: {method.name} of {name}: {code.name}")
        assert not wrong, "\n".join(wrong)
        monkeypatch.setattr(TenantDeletions, "run_once", step)
        await eventually(lambda: is_gone(world), 20)


def is_denied(said) -> bool:
    if isinstance(said, permissions_pb2.CheckResponse):
        return said.decision == permissions_pb2.DECISION_DENIED and not said.reason
    if isinstance(said, permissions_pb2.BatchCheckResponse):
        [result] = said.results
        if result.HasField("error"):
            return result.error.code == CODE.NOT_FOUND.value[0]
        return result.decision == permissions_pb2.DECISION_DENIED and not result.reason
    if isinstance(said, permissions_pb2.CheckAllResponse):
        return all(each.decision == permissions_pb2.DECISION_DENIED for each in said.permissions)
    return not said.HasField("resource") if isinstance(said, permissions_pb2.LookupResourcesResponse) else False


@pytest.mark.parametrize("delivered", [True, False])
async def test_checks_are_denied_at_once_whatever_they_ask_to_see(world: World, monkeypatch, delivered) -> None:
    """SpiceDB still holds everything; also where its stream is not delivered to its end, which nobody waits for."""

    async def nothing(_) -> bool:
        return False

    monkeypatch.setattr(TenantDeletions, "run_once", nothing)
    api = world.api
    lab, token = world.lab, (await api.workspace(world.lab, "more")).token
    assert await api.check(lab, "alice", "view", token, pemba_on_behalf_of="user:alice")
    if not delivered:
        await world.database.execute("SET ROLE pemba_system")
        await world.database.execute(
            "UPDATE tenant_head SET head_seq = head_seq + 5 WHERE tenant_id = $1", world.tenant.id
        )
        await world.database.execute("RESET ROLE")
    deleted = await delete(world)
    for fresh in (
        {},
        {"at_least_as_fresh": token},
        {"at_least_as_fresh": deleted.token},
        {"fully_consistent": True},
    ):
        request = permissions_pb2.CheckRequest(
            tenant_id=lab.tenant_id,
            resource=types_pb2.ObjectRef(type="workspace", id=lab.id),
            permission="view",
            subject=types_pb2.SubjectRef(type="user", id="alice"),
            consistency=types_pb2.Consistency(**fresh),
        )

        async def refused(request=request) -> bool:
            as_alice = api.metadata(pemba_on_behalf_of="user:alice")
            answered = await api.permissions.Check(request, metadata=as_alice, timeout=10)
            return answered.decision == permissions_pb2.DECISION_DENIED

        if deleted.token in fresh.values() or "fully_consistent" in fresh:
            assert await refused()
        else:
            await eventually(refused, 1.0)  # a server looks every 50 ms
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await api.permissions.Check(request, metadata=api.metadata(), timeout=10)
        assert error.value.code() is CODE.NOT_FOUND
