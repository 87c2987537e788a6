"""Promises about what is told of changes afterwards, and as they happen; see docs/promises.md."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from pemba.v1 import watch_pb2, watch_pb2_grpc
from tests.e2e.calls import Caller, ref, user_ref
from tests.e2e.test_promised_users import give, somebody

SECONDS = 20


async def test_a4_every_change_and_refusal_says_who_from_where_and_what_and_is_exported(
    system: Caller, acme: dict[str, str]
) -> None:
    tenant, bob, eng = acme["tenant"], somebody("bob"), f"workspace:{acme['eng']}"
    given = {"tenant_id": tenant, "object": ref(acme["eng"]), "subject": user_ref(bob)}
    await system.acting("alice")("SetRole", role="ROLE_VIEWER", **given)
    await system.acting("alice")("SetRole", role="ROLE_MEMBER", **given)
    refused = await system.acting(bob).refused("SetRole", role="ROLE_OWNER", **given)
    assert refused[0] == "PERMISSION_DENIED"
    asked = {"tenant_id": tenant, "filter": {"subject": user_ref(bob)}}
    listed = await system.acting("alice")("ListAuditEvents", order_by="id", **asked)
    made, changed, tried = listed["audit_events"]
    for event in (made, changed, tried):
        assert (event["method"], event["object"]) == ("SetRole", eng)
        assert event["principal"].startswith("system_key:")
        assert event["peer"]
        assert event["request_id"]
    assert [event["acting_user"] for event in (made, changed, tried)] == ["alice", "alice", bob]
    assert "before" not in made or made["before"] == []
    assert (changed["before"][0]["role"], changed["after"][0]["role"]) == ("viewer", "member")
    assert (tried["outcome"], tried["reason"]) == ("AUDIT_OUTCOME_REFUSED", refused[1])
    exported = await system.acting("alice")("ExportAuditEvents", **asked)
    assert [each["audit_event"]["id"] for each in exported if each.get("audit_event")] == [
        event["id"] for event in (made, changed, tried)
    ]


class Watch:
    """One watch of a workspace, message by message."""

    def __init__(self, caller: Caller, tenant: str, cursor: str = "", **about: str) -> None:
        metadata = (("authorization", f"Bearer {caller.key}"), ("pemba-on-behalf-of", f"user:{caller.user}"))
        request = watch_pb2.WatchChangesRequest(tenant_id=tenant, cursor=cursor, **about)
        self.call = watch_pb2_grpc.WatchServiceStub(caller.channel).WatchChanges(request, metadata=metadata)
        self.cursor = cursor

    async def message(self) -> watch_pb2.WatchChangesResponse:
        async with asyncio.timeout(SECONDS):
            message: Any = await self.call.read()
        self.cursor = message.cursor
        return message

    async def roles(self) -> list[tuple[str, str]]:
        """Of the next change: whose, and which."""
        while not (message := await self.message()).HasField("change"):
            pass
        return [(each.after["subject"]["id"], each.after["role"]) for each in message.change.records]


async def test_i9_a_workspace_is_followed_from_a_cursor_by_who_may_see_it_and_no_longer(
    system: Caller, acme: dict[str, str]
) -> None:
    tenant, vera, carol, dan = acme["tenant"], somebody("vera"), somebody("carol"), somebody("dan")
    token = await give(system, acme, "eng", vera, "ROLE_VIEWER")
    assert await system.may(tenant, vera, "view", acme["eng"], token)
    first = Watch(system.acting(vera), tenant, workspace_id=acme["eng"])
    assert not (await first.message()).HasField("change")
    await give(system, acme, "eng", carol, "ROLE_VIEWER")
    assert await first.roles() == [(carol, "viewer")]
    first.call.cancel()
    await give(system, acme, "eng", carol, "ROLE_MEMBER")
    await give(system, acme, "eng", dan, "ROLE_VIEWER")
    second = Watch(system.acting(vera), tenant, first.cursor, workspace_id=acme["eng"])
    assert [await second.roles(), await second.roles()] == [[(carol, "member")], [(dan, "viewer")]]
    own = Watch(system.acting(carol), tenant, user_id=carol)
    assert not (await own.message()).HasField("change")
    await give(system, acme, "eng", carol, "ROLE_ADMIN")
    assert await own.roles() == await second.roles() == [(carol, "admin")]
    own.call.cancel()
    await system("RemoveMember", tenant_id=tenant, object=ref(acme["eng"]), subject=user_ref(vera))
    lost = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await second.roles()
    assert ended.value.code() is grpc.StatusCode.NOT_FOUND
    assert time.monotonic() - lost < 1
