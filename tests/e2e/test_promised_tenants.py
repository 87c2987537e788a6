"""Promises about tenants, their trees and their groups; see docs/promises.md."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from pemba.projection import TYPES
from pemba.spicedb.client import FullyConsistent, SpiceDB
from tests.e2e.calls import Caller, ref, user_ref
from tests.truth import as_owner, eventually, sql


async def test_k1_a_tenant_comes_with_its_root_and_first_admin(system: Caller) -> None:
    slug = f"acme-{secrets.token_hex(4)}"
    made = [system("CreateTenant", slug=slug, name="Acme", first_admin="alice", request_id=f"{n}") for n in range(4)]
    results = await asyncio.gather(*made, return_exceptions=True)
    [created] = [each for each in results if isinstance(each, dict)]
    tenant, root = created["tenant"]["id"], created["root_workspace"]["id"]
    assert await system.may(tenant, "alice", "own", root, created["token"])
    listed = await system("ListWorkspaces", tenant_id=tenant, parent_id=root)
    assert listed["workspaces"] == [], "the root is the only one"
    got = await system("GetMembership", tenant_id=tenant, object=ref(tenant), subject=user_ref("alice"))
    assert got["membership"]["role"] == "ROLE_ADMIN"


async def test_k3_a_parent_with_children_cannot_be_deleted_nor_the_root(
    system: Caller, acme: dict[str, str], ready: dict[str, Any]
) -> None:
    tenant = acme["tenant"]
    for workspace, reason in (("eng", "HAS_CHILDREN"), ("root", "ROOT_WORKSPACE")):
        refused = await system.refused("DeleteWorkspace", tenant_id=tenant, workspace_id=acme[workspace])
        assert refused == ("FAILED_PRECONDITION", reason)
    with pytest.raises(asyncpg.RestrictViolationError):
        await as_owner(ready["database_url"], "workspaces", "DELETE FROM workspaces WHERE id = $1", acme["eng"])
    await system("DeleteWorkspace", tenant_id=tenant, workspace_id=acme["backend"])
    await system("DeleteWorkspace", tenant_id=tenant, workspace_id=acme["eng"])


async def test_k4_of_a_deleted_tenant_nothing_is_left_but_the_audit(
    system: Caller, acme: dict[str, str], ready: dict[str, Any]
) -> None:
    tenant = acme["tenant"]
    group = (await system("CreateGroup", tenant_id=tenant, slug="crew", name="Crew"))["group"]["id"]
    await system("AddGroupMember", tenant_id=tenant, group_id=group, subject=user_ref("bob"))
    subject = {"type": "group", "id": group, "relation": "member"}
    await system("SetRole", tenant_id=tenant, object=ref(acme["eng"]), subject=subject, role="ROLE_MEMBER")
    shared = {"workspace": ref(acme["backend"]), "with_workspace": ref(acme["eng"]), "role": "ROLE_VIEWER"}
    await system("CreateShare", tenant_id=tenant, **shared)
    secret = (await system("CreateApiKey", tenant_id=tenant, name="CI", scopes=["read"]))["secret"]
    key = replace(system, key=secret)
    assert (await key("GetTenant"))["tenant"]["id"] == tenant
    wrong = await system.refused("DeleteTenant", tenant_id=tenant, confirm_slug="another")
    assert wrong == ("INVALID_ARGUMENT", "INVALID_FIELD")

    begun = await system("DeleteTenant", tenant_id=tenant, confirm_slug=acme["slug"])
    assert await system.refused("GetTenant", tenant_id=tenant) == ("NOT_FOUND", "NOT_FOUND")
    assert (await key.refused("GetTenant"))[0] in ("NOT_FOUND", "UNAUTHENTICATED")
    assert not await system.acting("alice").may(tenant, "alice", "own", acme["root"], begun["token"])

    async def is_gone() -> bool:
        now = (await system("GetTenantDeletion", tenant_id=tenant))["deletion"]
        return "finish_time" in now and now["undelivered_rows"] == "0"

    await eventually(is_gone, 30)
    tables = await sql(
        ready["database_url"],
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'tenant_id'",
    )
    kept = {"tenant_head", "outbox", "tenant_delivery", "audit", "audit_mention", "tenant_deletion"}
    for table in {row["table_name"] for row in tables} - kept:
        assert await sql(ready["database_url"], f"SELECT FROM {table} WHERE tenant_id = $1", tenant) == [], table
    store = SpiceDB.connect(ready["spicedb_endpoint"], ready["spicedb_key"])
    for type_ in TYPES:
        async for found in store.read_tuples(type_, FullyConsistent(), 10, id_prefix=""):
            assert tenant not in str(found)
    await store.close()
    assert (await system("GetUser", user_id="bob"))["user"]["id"] == "bob"
    events = await system("ListAuditEvents", tenant_id=tenant)
    assert "DeleteTenant" in {each["method"] for each in events["audit_events"]}


async def test_k5_a_group_holds_a_role_and_so_do_its_members(system: Caller, acme: dict[str, str]) -> None:
    tenant = acme["tenant"]
    group = (await system("CreateGroup", tenant_id=tenant, slug="crew", name="Crew"))["group"]["id"]
    subject = {"type": "group", "id": group, "relation": "member"}
    await system("SetRole", tenant_id=tenant, object=ref(acme["eng"]), subject=subject, role="ROLE_MEMBER")
    added = await system("AddGroupMember", tenant_id=tenant, group_id=group, subject=user_ref("bob"))
    assert await system.may(tenant, "bob", "edit", acme["backend"], added["token"])
    gone = await system("RemoveGroupMember", tenant_id=tenant, group_id=group, subject=user_ref("bob"))
    assert not await system.may(tenant, "bob", "view", acme["backend"], gone["token"])


async def test_k6_what_is_committed_arrives_in_order_and_once_in_effect(system: Caller, acme: dict[str, str]) -> None:
    tenant = acme["tenant"]
    roles = ("ROLE_VIEWER", "ROLE_ADMIN", "ROLE_MEMBER") * 5
    change = {"tenant_id": tenant, "object": ref(acme["eng"]), "subject": user_ref("bob")}
    for role in roles:
        last = await system("SetRole", role=role, **change)
    assert await system.may(tenant, "bob", "edit", acme["eng"], last["token"])
    assert not await system.may(tenant, "bob", "administer", acme["eng"], last["token"])
    summary = (await system("Reconcile", tenant_id=tenant))[-1]["summary"]
    assert (summary["missing"], summary["too_much"]) == ("0", "0")
