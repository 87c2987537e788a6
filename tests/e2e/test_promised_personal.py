"""Promises about personal workspaces, settings, and what an installation begins with; see docs/promises.md."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path
from typing import Any

import grpc

from tests.e2e.calls import Caller, ref, user_ref
from tests.stack import KEY, processes

FAILED = "FAILED_PRECONDITION"


def somebody(name: str) -> str:
    """A user whom no other test knows: users are global."""
    return f"{name}-{secrets.token_hex(4)}"


async def personal(system: Caller, acme: dict[str, str], user: str) -> dict[str, Any]:
    """Names the user's personal workspace."""
    made = await system("EnsurePersonalWorkspace", tenant_id=acme["tenant"], user_id=user)
    return {"tenant_id": acme["tenant"], "workspace_id": made["workspace"]["id"]}


async def test_p1_the_members_of_a_personal_workspace_are_fixed_to_its_user(
    system: Caller, acme: dict[str, str]
) -> None:
    bob, tenant = somebody("bob"), acme["tenant"]
    mine = (await personal(system, acme, bob))["workspace_id"]
    assert await system.may(tenant, bob, "own", mine)
    assert not await system.may(tenant, "alice", "view", mine), "an admin of the tenant"
    fixed = (FAILED, "PERSONAL_MEMBERSHIP_FIXED")
    member = {"tenant_id": tenant, "object": ref(mine)}
    assert await system.refused("SetRole", **member, subject=user_ref("alice"), role="ROLE_VIEWER") == fixed
    assert await system.acting(bob).refused("RemoveMember", **member, subject=user_ref(bob)) == fixed
    shared = {"tenant_id": tenant, "workspace": ref(mine), "with_workspace": ref(acme["eng"]), "role": "ROLE_VIEWER"}
    assert await system.refused("CreateShare", **shared) == fixed


async def test_p2_the_kind_of_a_personal_workspace_is_frozen_both_ways(system: Caller, acme: dict[str, str]) -> None:
    mine = await personal(system, acme, somebody("bob"))
    eng = {"tenant_id": acme["tenant"], "workspace_id": acme["eng"]}
    frozen = (FAILED, "PERSONAL_KIND_FROZEN")
    assert await system.refused("UpdateWorkspace", **mine, kind="WORKSPACE_KIND_SHARED") == frozen
    assert await system.refused("UpdateWorkspace", **eng, kind="WORKSPACE_KIND_PERSONAL") == frozen
    assert await system.refused("MoveWorkspace", **mine, new_parent_id=acme["eng"]) == frozen


async def test_p3_the_user_of_a_personal_workspace_is_frozen(system: Caller, acme: dict[str, str]) -> None:
    mine = await personal(system, acme, somebody("bob"))
    refused = await system.refused("UpdateWorkspace", **mine, personal_user_id="alice")
    assert refused == (FAILED, "PERSONAL_OWNER_FROZEN")


async def test_p4_no_other_kind_has_a_personal_user(system: Caller, acme: dict[str, str]) -> None:
    refused = ("INVALID_ARGUMENT", "OWNER_ONLY_ON_PERSONAL")
    eng = {"tenant_id": acme["tenant"], "workspace_id": acme["eng"]}
    assert await system.refused("UpdateWorkspace", **eng, personal_user_id="alice") == refused
    new = {"tenant_id": acme["tenant"], "parent_id": acme["eng"], "slug": "extra", "name": "Extra"}
    assert await system.refused("CreateWorkspace", **new, personal_user_id="alice") == refused


async def test_p5_name_and_settings_of_a_personal_workspace_stay_editable(system: Caller, acme: dict[str, str]) -> None:
    bob = somebody("bob")
    mine = await personal(system, acme, bob)
    renamed = await system.acting(bob)("UpdateWorkspace", **mine, name="My own")
    assert renamed["workspace"]["name"] == "My own"
    changed = await system.acting(bob)("UpdateSettings", **mine, namespace="look", values={"dark": True})
    assert changed["settings"]["values"] == {"dark": True}
    assert (await system.acting("alice").refused("GetSettings", **mine))[0] == "NOT_FOUND"


async def test_p7_a_personal_workspace_is_ensured_beside_who_makes_and_deletes_it(
    system: Caller, acme: dict[str, str]
) -> None:
    bob, tenant = somebody("bob"), acme["tenant"]

    # Of each call there are two good outcomes, so none is expected to be raised.
    async def ensure() -> str:
        try:
            made = await system("EnsurePersonalWorkspace", tenant_id=tenant, user_id=bob)
        except grpc.aio.AioRpcError as error:
            assert "3 attempts" in str(error.details()), "it may give up, and then says so"  # noqa: PT017 - see above
            return ""
        assert made["workspace"]["personal_user_id"] == bob
        return str(made["workspace"]["id"])

    async def delete() -> None:
        mine = await personal(system, acme, bob)
        try:
            await system("DeleteWorkspace", **mine)
        except grpc.aio.AioRpcError as error:
            assert error.code().name == "NOT_FOUND", "another was faster"  # noqa: PT017 - see above

    await asyncio.gather(*(ensure() for _ in range(20)), *(delete() for _ in range(10)))
    assert await system.may(tenant, bob, "own", await ensure())


async def test_i7_settings_are_by_namespace_and_secrets_are_not_given_back(
    system: Caller, acme: dict[str, str]
) -> None:
    eng = {"tenant_id": acme["tenant"], "workspace_id": acme["eng"]}
    values = {"port": 25, "to": ["ops@acme.test"]}
    given = {"namespace": "mail", "values": values, "secrets": {"password": "hunter2"}, "request_id": "r1"}
    first, again = [await system("UpdateSettings", **eng, **given) for _ in range(2)]
    found = (await system("GetSettings", **eng))["settings"]
    assert again["replayed"]
    assert found == [first["settings"]] == [again["settings"]]
    assert (found[0]["values"], [secret["name"] for secret in found[0]["secrets"]]) == (values, ["password"])
    assert "hunter2" not in json.dumps([first, again, found])
    asked = {**eng, "namespace": "mail", "name": "password"}
    assert (await system("GetSecretSetting", **asked))["value"] == "hunter2"
    assert (await system.acting(somebody("eve")).refused("GetSecretSetting", **asked))[0] == "NOT_FOUND"


async def test_k2_servers_that_start_at_once_bootstrap_one_tenant(ready: dict[str, Any], tmp_path: Path) -> None:
    slug = f"first-{secrets.token_hex(4)}"
    settings = {
        "database_url": ready["database_url"],
        "spicedb_endpoint": ready["spicedb_endpoint"],
        "spicedb_key": ready["spicedb_key"],
        "bootstrap_tenant": slug,
        "bootstrap_tenant_name": "First",
        "bootstrap_admin": "alice",
    }
    async with processes(tmp_path, **settings) as servers:
        started = await asyncio.gather(*(servers.serve() for _ in range(2)))
        async with grpc.aio.insecure_channel(started[0].settings["PEMBA_GRPC_LISTEN"]) as channel:
            system = Caller(channel, KEY)
            tenant = (await system("GetTenant", slug=slug))["tenant"]
            root = (await system("GetWorkspace", tenant_id=tenant["id"], path=""))["workspace"]
            assert tenant["name"] == "First"
            assert await system.may(tenant["id"], "alice", "own", root["id"])
    told = [line for server in started for line in server.log.read_text().splitlines() if "bootstrapped" in line]
    assert len(told) == 1
    assert json.loads(told[0])["slug"] == slug
