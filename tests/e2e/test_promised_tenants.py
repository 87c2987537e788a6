"""Promises about tenants, their trees and their groups; see docs/promises.md."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import asyncpg
import pytest

from tests.e2e.calls import Caller, ref, user_ref
from tests.truth import as_owner


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
