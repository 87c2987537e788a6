"""Promises about checks, lookups, tokens, relays and repair; see docs/promises.md."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import psutil
import pytest
from authzed.api.v1 import DeleteRelationshipsRequest, RelationshipFilter
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.calls import Caller, give, ref, user_ref
from tests.truth import eventually


async def test_z1_checks_batches_and_all_that_a_subject_may_do(system: Caller, acme: dict[str, str]) -> None:
    tenant = acme["tenant"]
    token = await give(system, acme, "eng", "bob", "ROLE_MEMBER")
    fresh = {"at_least_as_fresh": token}
    items = [
        {"resource": ref(acme[where]), "permission": permission, "subject": user_ref("bob")}
        for where, permission in (("backend", "edit"), ("backend", "administer"), ("root", "view"))
    ]
    batch = await system("BatchCheck", tenant_id=tenant, items=items, consistency=fresh)
    decisions = [each["decision"] for each in batch["results"]]
    assert decisions == ["DECISION_ALLOWED", "DECISION_DENIED", "DECISION_DENIED"]
    asked = {"tenant_id": tenant, "resource": ref(acme["eng"]), "subject": user_ref("bob"), "consistency": fresh}
    every = {each["permission"]: each["decision"] for each in (await system("CheckAll", **asked))["permissions"]}
    assert {name for name, decision in every.items() if decision == "DECISION_ALLOWED"} == {"edit", "view"}


async def test_z2_lookups_go_both_ways(system: Caller, acme: dict[str, str]) -> None:
    fresh = {"at_least_as_fresh": await give(system, acme, "eng", "bob", "ROLE_VIEWER")}
    asked = {"tenant_id": acme["tenant"], "permission": "view", "consistency": fresh}
    found = await system("LookupResources", type="workspace", subject=user_ref("bob"), **asked)
    assert {each["resource"]["id"] for each in found[1:]} == {acme["eng"], acme["backend"]}
    who = await system("LookupSubjects", resource=ref(acme["backend"]), subject_type="user", **asked)
    assert {each["subject"]["id"] for each in who[1:]} == {"alice", "bob"}
    page = {"type": "workspace", "subject": user_ref("bob"), "limit": 1, **asked}
    first = (await system("LookupResources", **page))[1]
    second = (await system("LookupResources", cursor=first["cursor"], **page))[1]
    assert {each["resource"]["id"] for each in (first, second)} == {acme["eng"], acme["backend"]}


async def test_z3_a_role_holds_below_and_moves_with_the_tree(system: Caller, acme: dict[str, str]) -> None:
    tenant = acme["tenant"]
    ops = (await system("CreateWorkspace", tenant_id=tenant, parent_id=acme["root"], slug="ops", name="Ops"))[
        "workspace"
    ]
    token = await give(system, acme, "eng", "bob", "ROLE_MEMBER")
    assert await system.may(tenant, "bob", "edit", acme["backend"], token)
    moved = await system("MoveWorkspace", tenant_id=tenant, workspace_id=acme["backend"], new_parent_id=ops["id"])
    assert not await system.may(tenant, "bob", "view", acme["backend"], moved["token"])


async def test_z4_a_token_makes_every_later_check_see_the_change(system: Caller, acme: dict[str, str]) -> None:
    for _ in range(10):
        token = await give(system, acme, "eng", "bob", "ROLE_VIEWER")
        assert await system.may(acme["tenant"], "bob", "view", acme["backend"], token)
        asked = {"tenant_id": acme["tenant"], "object": ref(acme["eng"]), "subject": user_ref("bob")}
        gone = await system("RemoveMember", **asked)
        assert not await system.may(acme["tenant"], "bob", "view", acme["backend"], gone["token"])


async def definitely(system: Caller, *asked: str) -> bool | None:
    """The answer; None where there is none for now: a lease has to run out first, or a store is being filled."""
    try:
        return await system.may(*asked)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return None


async def test_z5_a_relay_that_dies_is_followed_by_another(
    system: Caller, acme: dict[str, str], ready: dict[str, Any]
) -> None:
    """`pemba dev` starts another one; replicas beside each other are in integration/relay."""
    psutil.Process(ready["pid"]["relay"]).kill()
    token = await give(system, acme, "eng", "bob", "ROLE_VIEWER")
    await eventually(lambda: definitely(system, acme["tenant"], "bob", "view", acme["eng"], token), 60)


@pytest.fixture
async def relationships(ready: dict[str, Any]) -> AsyncIterator[Callable[[RelationshipFilter], Awaitable[None]]]:
    """Deletes relationships behind Pemba's back."""
    async with grpc.aio.insecure_channel(ready["spicedb_endpoint"]) as channel:
        stub = PermissionsServiceStub(channel)

        async def delete(matching: RelationshipFilter) -> None:
            request = DeleteRelationshipsRequest(relationship_filter=matching)
            await stub.DeleteRelationships(request, metadata=(("authorization", f"Bearer {ready['spicedb_key']}"),))

        yield delete


async def test_b1_a_token_outlives_the_loss_of_spicedbs_data(
    system: Caller, acme: dict[str, str], relationships: Callable[[RelationshipFilter], Awaitable[None]]
) -> None:
    token = await give(system, acme, "eng", "bob", "ROLE_VIEWER")
    asked = (acme["tenant"], "bob", "view", acme["eng"], token)
    assert await system.may(*asked)
    for kind in ("fence", "tenant", "workspace", "group"):
        await relationships(RelationshipFilter(resource_type=kind))

    async def is_filled() -> bool:
        try:
            summary = (await system("Reconcile", tenant_id=acme["tenant"]))[-1]["summary"]
        except grpc.aio.AioRpcError:
            return False
        return bool(summary["missing"] == "0")

    await eventually(is_filled, 60, every=0.1)
    await eventually(lambda: definitely(system, *asked), 60)


async def test_b2_drift_is_found_and_repaired_while_everything_runs(
    system: Caller, acme: dict[str, str], relationships: Callable[[RelationshipFilter], Awaitable[None]]
) -> None:
    tenant = acme["tenant"]
    token = await give(system, acme, "eng", "bob", "ROLE_VIEWER")
    assert await system.may(tenant, "bob", "view", acme["eng"], token)
    await relationships(RelationshipFilter(resource_type="workspace", optional_relation="viewer"))
    assert not await system.may(tenant, "bob", "view", acme["eng"]), "it is gone"
    found = (await system("Reconcile", tenant_id=tenant))[-1]["summary"]
    assert (found["missing"], found["repaired"]) == ("1", "0"), "nothing is changed by a look"
    repaired = (await system("Reconcile", tenant_id=tenant, apply=True))[-1]
    assert repaired["summary"]["repaired"] == "1"
    assert await system.may(tenant, "bob", "view", acme["eng"], repaired["token"])


async def test_b11_one_command_starts_everything(ready: dict[str, Any]) -> None:
    assert {"postgres", "spicedb", "serve", "relay"} <= ready["pid"].keys()
    async with grpc.aio.insecure_channel(ready["grpc"]) as channel:
        status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert status.status == health_pb2.HealthCheckResponse.SERVING
