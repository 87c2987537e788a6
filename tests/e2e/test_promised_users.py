"""Promises about users, roles, sharing and isolation; see docs/promises.md."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.e2e.calls import Caller, give, ref, user_ref


def somebody(name: str) -> str:
    """A user whom no other test knows: users are global."""
    return f"{name}-{secrets.token_hex(4)}"


async def test_i1_a_suspended_user_is_denied_at_once_and_restored_intact(system: Caller, acme: dict[str, str]) -> None:
    bob, tenant = somebody("bob"), acme["tenant"]
    await system("CreateUser", id=bob, email=f"{bob}@acme.test", display_name="Bob")
    refused = await system.refused("CreateUser", id=somebody("eve"), email=f"{bob}@acme.test")
    assert refused == ("ALREADY_EXISTS", "EMAIL_TAKEN")
    token = await give(system, acme, "eng", bob, "ROLE_MEMBER")
    assert await system.may(tenant, bob, "edit", acme["backend"], token)
    await system("SuspendUser", user_id=bob)
    assert not await system.may(tenant, bob, "view", acme["backend"])
    back = await system("ActivateUser", user_id=bob)
    assert await system.may(tenant, bob, "edit", acme["backend"], back["token"])
    assert (await system("RecordLogin", user_id=bob))["user"]["last_login_time"]
    gone = await system("DeactivateUser", user_id=bob)
    assert gone["user"]["status"] == "USER_STATUS_DEACTIVATED"
    assert not await system.may(tenant, bob, "view", acme["backend"])


async def test_i3_the_last_owner_and_the_last_admin_stay(system: Caller, acme: dict[str, str]) -> None:
    tenant = acme["tenant"]
    owners = [somebody("olga"), somebody("otto")]
    for owner in owners:
        await give(system, acme, "eng", owner, "ROLE_OWNER")
    leaving = [
        system.acting(owner)("RemoveMember", tenant_id=tenant, object=ref(acme["eng"]), subject=user_ref(owner))
        for owner in owners
    ]
    left = await asyncio.gather(*leaving, return_exceptions=True)
    assert sum(isinstance(each, dict) for each in left) == 1, "both at once: one of them stays"
    admin = {"tenant_id": tenant, "object": ref(tenant), "subject": user_ref("alice")}
    assert await system.refused("RemoveMember", **admin) == ("FAILED_PRECONDITION", "LAST_ADMIN")
    assert await system.refused("SetRole", role="ROLE_MEMBER", **admin) == ("FAILED_PRECONDITION", "LAST_ADMIN")


async def test_i4_only_owners_make_owners_and_a_change_of_role_keeps_the_join_time(
    system: Caller, acme: dict[str, str]
) -> None:
    tenant, ada, bob = acme["tenant"], somebody("ada"), somebody("bob")
    await give(system, acme, "eng", ada, "ROLE_ADMIN")
    asked = {"tenant_id": tenant, "object": ref(acme["eng"]), "subject": user_ref(bob)}
    first = (await system.acting(ada)("SetRole", role="ROLE_VIEWER", **asked))["membership"]
    assert first["invited_by"] == ada
    refused = await system.acting(ada).refused("SetRole", role="ROLE_OWNER", **asked)
    assert refused == ("PERMISSION_DENIED", "ONLY_OWNER_MAKES_OWNERS")
    second = (await system("SetRole", role="ROLE_OWNER", **asked))["membership"]
    assert (second["join_time"], second["invited_by"]) == (first["join_time"], ada)
    assert await system.refused("SetRole", role="ROLE_UNSPECIFIED", **asked) == ("INVALID_ARGUMENT", "INVALID_FIELD")


async def test_i5_what_an_owner_archives_is_denied_and_listed_only_where_asked_for(
    system: Caller, acme: dict[str, str]
) -> None:
    tenant, ada = acme["tenant"], somebody("ada")
    await give(system, acme, "eng", ada, "ROLE_ADMIN")
    named = {"tenant_id": tenant, "workspace_id": acme["eng"]}
    assert (await system.acting(ada).refused("ArchiveWorkspace", **named))[0] == "PERMISSION_DENIED"
    await give(system, acme, "eng", ada, "ROLE_OWNER")
    gone = await system.acting(ada)("ArchiveWorkspace", **named)
    assert not await system.may(tenant, ada, "view", acme["backend"], gone["token"])
    below = {"tenant_id": tenant, "parent_id": acme["root"]}
    assert (await system("ListWorkspaces", **below))["workspaces"] == []
    assert len((await system("ListWorkspaces", include_archived=True, **below))["workspaces"]) == 1
    back = await system.acting(ada)("UnarchiveWorkspace", **named)
    assert await system.may(tenant, ada, "own", acme["backend"], back["token"])


async def test_i6_a_share_gives_a_role_to_a_roster_until_it_expires_and_no_further(
    system: Caller, acme: dict[str, str]
) -> None:
    tenant, bob, carol = acme["tenant"], somebody("bob"), somebody("carol")
    ids = []
    for slug in ("red", "blue", "green"):
        made = await system("CreateWorkspace", tenant_id=tenant, parent_id=acme["root"], slug=slug, name=slug)
        ids.append(made["workspace"]["id"])
    red, blue, green = ids
    await give(system, {**acme, "blue": blue}, "blue", bob, "ROLE_VIEWER")
    await give(system, {**acme, "green": green}, "green", carol, "ROLE_VIEWER")
    pair = {"tenant_id": tenant, "role": "ROLE_MEMBER"}
    until = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    await system("CreateShare", workspace=ref(red), with_workspace=ref(blue), expire_time=until, **pair)
    shared = await system("CreateShare", workspace=ref(blue), with_workspace=ref(green), **pair)
    assert await system.may(tenant, bob, "edit", red, shared["token"])
    assert await system.may(tenant, carol, "edit", blue, shared["token"])
    assert not await system.may(tenant, carol, "view", red, shared["token"]), "it is not passed on"
    revoked = await system("RevokeShare", tenant_id=tenant, share_id=shared["share"]["id"])
    assert not await system.may(tenant, carol, "view", blue, revoked["token"])


async def test_i8_another_tenants_things_are_not_there(system: Caller, acme: dict[str, str]) -> None:
    other = (await system("CreateTenant", slug=somebody("globex"), name="Globex", first_admin="greta"))["tenant"]["id"]
    named = {"tenant_id": other, "workspace_id": acme["eng"]}
    assert await system.refused("GetWorkspace", **named) == ("NOT_FOUND", "NOT_FOUND")
    assert await system.refused("ArchiveWorkspace", **named) == ("NOT_FOUND", "NOT_FOUND")
    assert not await system.may(other, "alice", "view", acme["eng"])


async def test_i11_malformed_ids_slugs_and_roles_are_errors_that_name_the_field(
    system: Caller, acme: dict[str, str]
) -> None:
    good = {"tenant_id": acme["tenant"], "parent_id": acme["root"], "slug": "fine", "name": "Fine"}
    for field, value, reason in (
        ("tenant_id", "ten_nonsense", "INVALID_FIELD"),
        ("parent_id", acme["tenant"], "INVALID_FIELD"),
        ("slug", "Not A Slug", "INVALID_FIELD"),
        ("slug", "admin", "SLUG_RESERVED"),
    ):
        assert await system.refused("CreateWorkspace", **{**good, field: value}) == ("INVALID_ARGUMENT", reason)


async def test_a1_a_subject_has_one_role_on_a_tenant_however_often_it_is_given(
    system: Caller, acme: dict[str, str]
) -> None:
    asked = {"tenant_id": acme["tenant"], "object": ref(acme["tenant"])}
    bob = somebody("bob")
    roles = [system("SetRole", subject=user_ref(bob), role=role, **asked) for role in ("ROLE_ADMIN", "ROLE_MEMBER") * 3]
    await asyncio.gather(*roles)
    listed = (await system("ListMembers", **asked))["memberships"]
    assert [each["subject"]["id"] for each in listed].count(bob) == 1


async def test_w1_a_user_is_created_with_a_workspace_of_theirs_in_one_call(
    system: Caller, acme: dict[str, str]
) -> None:
    bob = somebody("bob")
    wanted = {"tenant_id": acme["tenant"], "kind": "WORKSPACE_KIND_SHARED", "slug": bob, "name": "Bob's"}
    made = await system("CreateUser", id=bob, create_workspace=wanted)
    workspace = made["workspace"]["id"]
    assert await system.may(acme["tenant"], bob, "own", workspace, made["token"])
    assert (await system("GetCurrentWorkspace", user_id=bob))["workspace"]["id"] == workspace


async def test_w2_a_user_has_a_current_workspace_the_one_chosen_or_a_default(
    system: Caller, acme: dict[str, str]
) -> None:
    bob = somebody("bob")
    await give(system, acme, "eng", bob, "ROLE_VIEWER")
    asked = {"user_id": bob, "tenant_id": acme["tenant"]}
    assert (await system("GetCurrentWorkspace", **asked))["workspace"]["id"] == acme["eng"]
    await system("SetCurrentWorkspace", workspace_id=acme["backend"], **asked)
    assert (await system("GetCurrentWorkspace", **asked))["workspace"]["id"] == acme["backend"]


async def test_w4_who_may_not_see_a_workspace_gets_not_found_as_for_one_that_is_not_there(
    system: Caller, acme: dict[str, str]
) -> None:
    stranger = system.acting(somebody("mallory"))
    missing = acme["eng"][:-4] + "zzzz"
    for method in ("GetWorkspace", "ArchiveWorkspace", "DeleteWorkspace"):
        refusals = {
            await stranger.refused(method, tenant_id=acme["tenant"], workspace_id=each)
            for each in (acme["eng"], missing)
        }
        assert refusals == {("NOT_FOUND", "NOT_FOUND")}


async def test_w5_nobody_changes_their_own_role_and_the_creator_stays(system: Caller, acme: dict[str, str]) -> None:
    tenant, ada, olga = acme["tenant"], somebody("ada"), somebody("olga")
    await give(system, acme, "eng", ada, "ROLE_ADMIN")
    own = {"tenant_id": tenant, "object": ref(acme["eng"]), "subject": user_ref(ada), "role": "ROLE_VIEWER"}
    assert await system.acting(ada).refused("SetRole", **own) == ("PERMISSION_DENIED", "OWN_ROLE")
    asked = {"tenant_id": tenant, "parent_id": acme["eng"], "slug": "lab", "name": "Lab"}
    lab = (await system.acting(ada)("CreateWorkspace", **asked))["workspace"]["id"]
    await give(system, {**acme, "lab": lab}, "lab", olga, "ROLE_OWNER")
    ends = {"tenant_id": tenant, "object": ref(lab), "subject": user_ref(ada)}
    assert await system.acting(olga).refused("RemoveMember", **ends) == ("PERMISSION_DENIED", "CREATOR_STAYS")


async def test_w7_the_database_gives_no_rows_without_a_tenant(
    system: Caller, acme: dict[str, str], ready: dict[str, Any]
) -> None:
    connection = await asyncpg.connect(ready["database_url"])
    try:
        await connection.execute("SET ROLE pemba_api")
        for table in ("workspaces", "memberships", "groups", "shares", "audit"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        await connection.execute(f"SET pemba.tenant_id = '{acme['tenant']}'")
        assert await connection.fetchval("SELECT count(*) FROM workspaces") == 3
    finally:
        await connection.close()


async def test_w3_an_invitation_is_for_one_email_accepted_once_and_makes_the_user_and_their_first_key(
    system: Caller, acme: dict[str, str]
) -> None:
    carol, tenant = somebody("carol"), acme["tenant"]
    email = f"{carol}@acme.test"
    wanted = {"tenant_id": tenant, "workspace": ref(acme["eng"]), "email": email, "role": "ROLE_MEMBER"}
    made = await system.acting("alice")("CreateInvitation", **wanted)
    invitation = made["invitation"]
    days = datetime.fromisoformat(invitation["expire_time"]) - datetime.fromisoformat(invitation["create_time"])
    assert days == timedelta(days=7)
    listed = await system.acting("alice")("ListInvitations", tenant_id=tenant, workspace=ref(acme["eng"]))
    assert [each["id"] for each in listed["invitations"]] == [invitation["id"]]
    assert made["token"] not in str(listed)
    mine = {"token": made["token"], "user_id": carol, "email": email}
    mismatch = "FAILED_PRECONDITION", "INVITATION_EMAIL_MISMATCH"
    assert await system.refused("AcceptInvitation", **{**mine, "email": f"x{email}"}) == mismatch
    accepted = await system(
        "AcceptInvitation", **mine, display_name="Carol", first_key={"name": "laptop", "scopes": ["read", "write"]}
    )
    assert accepted["membership"]["invited_by"] == "alice"
    assert accepted["user"]["email"] == email
    assert await system.may(tenant, carol, "edit", acme["backend"], accepted["token"])
    theirs = Caller(system.channel, accepted["secret"])
    assert (await theirs("GetWorkspace", tenant_id=tenant, workspace_id=acme["eng"]))["workspace"]["id"] == acme["eng"]
    assert await system.refused("AcceptInvitation", **mine) == ("FAILED_PRECONDITION", "INVITATION_USED")
    assert await system.refused("CreateInvitation", **wanted) == ("ALREADY_EXISTS", "ALREADY_MEMBER")
    other = await system("CreateInvitation", **{**wanted, "email": f"d{email}"})
    await system("RevokeInvitation", tenant_id=tenant, invitation_id=other["invitation"]["id"])
    late = {"token": other["token"], "user_id": somebody("dan"), "email": f"d{email}"}
    assert await system.refused("AcceptInvitation", **late) == ("FAILED_PRECONDITION", "INVITATION_USED")
