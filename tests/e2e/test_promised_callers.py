"""Promises about who calls, and what a key lets them do; see docs/promises.md."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from tests.e2e.calls import METHODS, Caller, ref, user_ref
from tests.stack import Refusal
from tests.truth import eventually

WithKey = Callable[[str], Caller]


@pytest.fixture
def with_key(system: Caller) -> WithKey:
    """Somebody with that secret."""
    return lambda secret: replace(system, key=secret)


async def is_refused_with(caller: Caller, reason: str, tenant: str) -> bool:
    try:
        await caller("GetTenant", tenant_id=tenant)
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.UNAUTHENTICATED and Refusal(error).reason == reason
    return False


async def test_i2_a_key_is_shown_once_and_refused_within_a_second_of_its_end(
    system: Caller, acme: dict[str, str], with_key: WithKey
) -> None:
    tenant = {"tenant_id": acme["tenant"]}
    asked = {**tenant, "name": "ci", "scopes": ["read"], "request_id": secrets.token_hex(8)}
    made = await system("CreateApiKey", **asked)
    again = await system("CreateApiKey", **asked)
    assert (again["secret"], again["replayed"]) == ("", True)
    key = made["api_key"]
    assert made["secret"].startswith(key["prefix"])
    [listed] = (await system("ListApiKeys", **tenant))["api_keys"]
    assert made["secret"] not in str(listed)
    assert await with_key(made["secret"])("GetTenant", **tenant)
    rotated = (await system("RotateApiKey", **tenant, api_key_id=key["id"]))["secret"]
    await eventually(lambda: is_refused_with(with_key(made["secret"]), "KEY_REVOKED", acme["tenant"]), 1)
    assert await with_key(rotated)("GetTenant", **tenant)
    await system("RevokeApiKey", **tenant, api_key_id=key["id"])
    await eventually(lambda: is_refused_with(with_key(rotated), "KEY_REVOKED", acme["tenant"]), 1)
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat().replace("+00:00", "Z")
    short = await system("CreateApiKey", **tenant, name="short", scopes=["read"], expire_time=soon)
    await eventually(lambda: is_refused_with(with_key(short["secret"]), "KEY_EXPIRED", acme["tenant"]), 5)


async def test_i2_users_make_and_revoke_their_own_keys(system: Caller, acme: dict[str, str], with_key: WithKey) -> None:
    tenant = {"tenant_id": acme["tenant"]}
    bob = f"bob-{secrets.token_hex(4)}"
    await system("SetRole", **tenant, object=ref(acme["eng"]), subject=user_ref(bob), role="ROLE_VIEWER")
    own = await system.acting(bob)("CreateApiKey", **tenant, user_id=bob, name="laptop", scopes=["read", "check"])
    bobs = with_key(own["secret"])
    assert await bobs("GetWorkspace", **tenant, workspace_id=acme["eng"])
    assert await bobs.refused("GetWorkspace", **tenant, workspace_id=acme["root"]) == ("NOT_FOUND", "NOT_FOUND")
    await system.acting(bob)("RevokeApiKey", **tenant, api_key_id=own["api_key"]["id"])
    await eventually(lambda: is_refused_with(bobs, "KEY_REVOKED", acme["tenant"]), 1)


async def test_a2_every_method_takes_a_key(system: Caller) -> None:
    """What each kind of key is let in to is walked in integration/api/test_api_keys.py."""
    for name, method in METHODS.items():
        path = f"/{method.containing_service.full_name}/{name}"
        body = GetMessageClass(method.input_type)().SerializeToString()
        call: Any = system.channel.unary_stream if method.server_streaming else system.channel.unary_unary
        answer = call(path)(body, metadata=(("authorization", "Bearer nonsense"),), timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (answer.read() if method.server_streaming else answer)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_b5_a_key_lets_do_what_its_scopes_say_in_its_tenant_and_nothing_else(
    system: Caller, acme: dict[str, str], with_key: WithKey
) -> None:
    tenant = {"tenant_id": acme["tenant"]}
    made = await system("CreateApiKey", **tenant, name="checker", scopes=["check"])
    checker = with_key(made["secret"])
    assert await checker.may(acme["tenant"], "alice", "own", acme["eng"])
    assert await checker.refused("GetTenant", **tenant) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    other = await system("CreateTenant", slug=f"globex-{secrets.token_hex(4)}", name="Globex", first_admin="greta")
    reader = with_key((await system("CreateApiKey", **tenant, name="reader", scopes=["read"]))["secret"])
    refused = await reader.refused("GetTenant", tenant_id=other["tenant"]["id"])
    assert refused == ("NOT_FOUND", "NOT_FOUND")
    writer = with_key((await system("CreateApiKey", **tenant, name="admin", scopes=["admin"]))["secret"])
    more = await writer.refused("CreateApiKey", **tenant, name="more", scopes=["admin", "write"])
    assert more[0] == "PERMISSION_DENIED", "nobody gives a key more than they have"


async def test_a3_the_tenant_of_the_metadata_holds_and_a_message_that_contradicts_it_is_refused(
    system: Caller, acme: dict[str, str]
) -> None:
    path = "/pemba.v1.TenantService/GetTenant"
    get = GetMessageClass(METHODS["GetTenant"].input_type)
    key = ("authorization", f"Bearer {system.key}")
    other = await system("CreateTenant", slug=f"globex-{secrets.token_hex(4)}", name="Globex", first_admin="greta")
    unary = system.channel.unary_unary(path)
    named = (key, ("pemba-tenant", acme["tenant"]))
    body = get(tenant_id=acme["tenant"]).SerializeToString()
    assert await unary(body, metadata=named, timeout=10)
    for metadata, tenant in ((named, other["tenant"]["id"]), ((key, ("pemba-tenant", "nonsense")), acme["tenant"])):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(get(tenant_id=tenant).SerializeToString(), metadata=metadata, timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
