"""API keys as holders of roles and members of groups: given by whom, seen by whom, and gone with the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pemba import projection
from pemba.errors import PembaError, Reason
from pemba.model import ApiKey, Permission, Role, SubjectRef, SystemScope, Tenant, Tuple, Workspace
from pemba.service import effective_members, wanted
from pemba.service.key_expiry import KeyExpiry
from pemba.service.role_change import RoleAssignment
from pemba.storage import api_keys, outbox
from pemba.storage.database import Database
from pemba.storage.wakeup import Notifier
from tests.integration.conftest import SYSTEM, Parts, ref, tenant_of
from tests.integration.instruments import Gate, one_behind_the_other
from tests.truth import projected, require_no_gap


@pytest.fixture
async def acme(parts: Parts) -> tuple[Tenant, Workspace]:
    """Its root, and `lab` below it, which carol administers."""
    tenant, root = await parts.tenant()
    lab = await parts.workspace(root, "lab")
    await parts.role(lab, "carol", Role.ADMIN)
    return tenant, lab


@pytest.fixture
async def key(parts: Parts, acme: tuple[Tenant, Workspace]) -> ApiKey:
    return (await parts.key(acme[0])).changed.record


def subject(key: ApiKey) -> SubjectRef:
    return SubjectRef("api_key", key.id)


async def give(parts: Parts, on: Tenant | Workspace, key: ApiKey, role: Role = Role.VIEWER, caller=SYSTEM, **options):
    return await parts.memberships.set_role(
        caller, tenant_of(on), object=ref(on), subject=subject(key), role=role, options=parts.options(**options)
    )


async def take(parts: Parts, on: Tenant | Workspace, key: ApiKey, caller=SYSTEM):
    return await parts.memberships.remove_member(
        caller,
        tenant_of(on),
        object=ref(on),
        subject=subject(key),
        allow_missing=False,
        transfer_to=None,
        options=parts.options(),
    )


async def join(parts: Parts, group, key: ApiKey, caller=SYSTEM):
    return await parts.groups.add_group_member(
        caller, group.tenant_id, group.id, subject=subject(key), manager=False, options=parts.options()
    )


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def test_a_role_of_a_key_is_a_tuple_and_goes_with_the_role(parts: Parts, acme, key: ApiKey) -> None:
    tenant, lab = acme
    for on, role in ((lab, Role.VIEWER), (lab, Role.ADMIN), (tenant, Role.MEMBER)):
        given = await give(parts, on, key, role)
        assert (given.record.subject, given.token != "") == (subject(key), True)
        assert (await parts.operations(tenant))[-1][-1] == f"+{role}@api_key:{key.id}"
    await take(parts, tenant, key)
    assert (await parts.operations(tenant))[-1] == [f"-member@api_key:{key.id}"]
    page = await parts.memberships.list_members(SYSTEM, tenant.id, object=ref(lab), page_size=10, page_token="")
    assert [m.subject for m in page.records] == [subject(key), SubjectRef("user", "carol")]


async def test_a_place_in_a_group_is_a_tuple_and_what_the_group_may_the_key_may(
    parts: Parts, acme, key: ApiKey
) -> None:
    tenant, lab = acme
    group = await parts.group(tenant, "bots")
    await parts.role(lab, group, Role.MEMBER)
    await join(parts, group, key)
    assert (await parts.operations(tenant))[-1] == [f"+member@api_key:{key.id}"]
    async with parts.database.begin(SystemScope("test")) as tx:
        found = await effective_members.find(tx.of(tenant.id), lab.id, Permission.EDIT, ["", ""], 10)
    assert subject(key) in [member.subject for member in found]
    await parts.groups.remove_group_member(
        SYSTEM, tenant.id, group.id, subject=subject(key), allow_missing=False, options=parts.options()
    )
    assert (await parts.operations(tenant))[-1] == [f"-member@api_key:{key.id}"]


async def test_tenant_admins_give_roles_to_keys_and_nobody_else(parts: Parts, acme, key: ApiKey) -> None:
    tenant, lab = acme
    group = await parts.group(tenant, "bots", manager="bob")
    assert await refusal(give(parts, lab, key, caller=parts.acting("carol"))) is Reason.NOT_FOUND
    assert await refusal(join(parts, group, key, caller=parts.acting("bob"))) is Reason.NOT_FOUND
    of_workspace = replace(SYSTEM, tenant_id=tenant.id, workspace_id=lab.id)
    assert await refusal(give(parts, lab, key, caller=of_workspace)) is Reason.NOT_FOUND
    for caller in (parts.acting("alice"), replace(SYSTEM, tenant_id=tenant.id)):
        await give(parts, lab, key, caller=caller)
        await join(parts, group, key, caller=caller)
        await take(parts, lab, key, caller=caller)


async def test_only_a_tenants_own_keys_that_are_no_users_hold_roles(parts: Parts, acme, database_url: str) -> None:
    tenant, lab = acme
    other, _ = await parts.tenant("mallory")
    group = await parts.group(tenant, "bots")
    theirs, systems = (await parts.key(other)).changed.record, (await parts.key(None)).changed.record
    carols = (await parts.key(tenant, user="carol")).changed.record
    expiring = (await parts.key(tenant, until=datetime.now(UTC) + timedelta(hours=1))).changed.record
    await parts.sql("UPDATE api_keys SET expire_time = now() - interval '1 s' WHERE id = $1", expiring.id)
    revoked = (await parts.key(tenant)).changed.record
    await parts.revoke_key(revoked)
    for key, reason in (
        *((theirs, Reason.NOT_FOUND), (systems, Reason.NOT_FOUND), (carols, Reason.INVALID_FIELD)),
        *((expiring, Reason.API_KEY_ENDED), (revoked, Reason.API_KEY_ENDED)),
    ):
        assert await refusal(give(parts, lab, key)) is reason
        assert await refusal(join(parts, group, key)) is reason


async def test_revoking_a_key_withdraws_all_it_holds_in_the_same_change(
    parts: Parts, acme, key: ApiKey, database_url: str
) -> None:
    tenant, lab = acme
    old = await parts.workspace(lab, "old")
    group = await parts.group(tenant, "bots")
    await give(parts, tenant, key, Role.MEMBER)
    await give(parts, lab, key, Role.ADMIN)
    await give(parts, old, key, Role.VIEWER)
    await parts.workspaces.archive_workspace(SYSTEM, tenant.id, old.id, options=parts.options())
    await join(parts, group, key)
    etag = (await parts.groups.get_group(SYSTEM, tenant.id, by="id", value=group.id)).record.etag
    revoked = await parts.revoke_key(key)
    assert revoked.token != ""
    assert sorted((await parts.operations(tenant))[-1]) == [
        f"-admin@api_key:{key.id}",
        f"-member@api_key:{key.id}",
        f"-member@api_key:{key.id}",
    ]
    assert not [t for t in await projected(database_url, tenant.id) if key.id in str(t)]
    for table in ("memberships", "group_members"):
        assert not await parts.sql(f"SELECT FROM {table} WHERE api_key_id = $1", key.id)
    assert (await parts.groups.get_group(SYSTEM, tenant.id, by="id", value=group.id)).record.etag != etag
    assert await refusal(give(parts, lab, key)) is Reason.API_KEY_ENDED


async def test_a_role_given_while_its_key_is_revoked_is_withdrawn_or_refused(
    parts: Parts, acme, key: ApiKey, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    tenant, lab = acme
    gate = Gate(monkeypatch, api_keys, "revoke")
    _, late = await one_behind_the_other(parts, gate, parts.revoke_key(key), lambda: give(parts, lab, key))
    assert late.reason is Reason.API_KEY_ENDED
    assert not [t for t in await projected(database_url, tenant.id) if key.id in str(t)]


async def test_the_keys_of_a_workspace_go_with_it_and_so_does_all_they_hold(
    parts: Parts, acme, database_url: str
) -> None:
    tenant, lab = acme
    bench = await parts.workspace(lab, "bench")
    key = (await parts.key(tenant, workspace=bench)).changed.record
    await give(parts, lab, key, Role.MEMBER)
    await parts.workspaces.delete_workspace(SYSTEM, tenant.id, bench.id, options=parts.options())
    assert f"-member@api_key:{key.id}" in (await parts.operations(tenant))[-1]
    assert await refusal(parts.keys.get_api_key(SYSTEM, tenant.id, key.id)) is Reason.NOT_FOUND
    assert not [t for t in await projected(database_url, tenant.id) if key.id in str(t)]


async def test_what_keys_hold_is_what_repairs_want(parts: Parts, acme, key: ApiKey, database_url: str) -> None:
    tenant, lab = acme
    group = await parts.group(tenant, "bots")
    await parts.memberships.set_roles(
        SYSTEM,
        tenant.id,
        assignments=[RoleAssignment(ref(on), subject(key), Role.MEMBER) for on in (tenant, lab)],
        options=parts.options(),
    )
    await join(parts, group, key)
    everything: set[Tuple] = set()
    async for page in wanted.pages(parts.database, tenant.id):
        everything |= page
    held = {t for t in everything if t.subject == projection.subject_in_spicedb(tenant.id, subject(key))}
    assert len(held) == 3
    assert everything == await projected(database_url, tenant.id)
    async with parts.database.begin(SystemScope("test")) as tx:
        assert await wanted.among(tx, list(held)) == held
    await parts.revoke_key(key)
    async with parts.database.begin(SystemScope("test")) as tx:
        assert await wanted.among(tx, list(held)) == set()


# -- expiry -----------------------------------------------------------------------------------------------


@pytest.fixture
async def expiry(parts: Parts, database: Database) -> AsyncIterator[KeyExpiry]:
    notifier = Notifier(database)
    yield KeyExpiry(database, notifier)
    await notifier.close()


async def expire(parts: Parts, *keys: ApiKey) -> None:
    past = "UPDATE api_keys SET expire_time = now() - interval '1 s' WHERE id = ANY ($1)"
    await parts.sql(past, [key.id for key in keys])


async def test_what_an_expired_key_holds_is_withdrawn_once(
    parts: Parts, acme, key: ApiKey, expiry: KeyExpiry, database_url: str
) -> None:
    tenant, lab = acme
    later = (await parts.key(tenant, until=datetime.now(UTC) + timedelta(hours=1))).changed.record
    for each in (key, later):
        await give(parts, lab, each)
    assert 0 < await expiry.seconds_left() <= 3600
    assert await expiry.run_once() == 0
    await expire(parts, key)
    assert await expiry.seconds_left() < 0
    assert await expiry.run_once() == 1
    assert (await parts.operations(tenant))[-1] == [f"-viewer@api_key:{key.id}"]
    head = await require_no_gap(database_url, tenant.id)
    assert (await expiry.run_once(), await expiry.seconds_left() > 0) == (0, True)
    assert await require_no_gap(database_url, tenant.id) == head
    assert [t for t in await projected(database_url, tenant.id) if later.id in str(t)]
    [row] = await parts.sql("SELECT * FROM audit WHERE tenant_id = $1 AND seq = $2", tenant.id, head)
    assert (row["method"], row["principal"]) == ("ExpireApiKeys", "pemba:maintenance")
    assert f"api_key:{key.id}" in row["about"]


async def test_of_two_sweepers_one_withdraws(parts: Parts, acme, key: ApiKey, expiry: KeyExpiry) -> None:
    await give(parts, acme[1], key)
    await expire(parts, key)
    assert sorted(await asyncio.gather(*(expiry.run_once() for _ in range(3)))) == [0, 0, 1]


async def test_a_role_behind_the_sweeper_is_refused_although_its_transaction_began_while_the_key_was_good(
    parts: Parts, acme, expiry: KeyExpiry, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    tenant, lab = acme
    key = (await parts.key(tenant)).changed.record
    advance, begun, go = outbox.advance, asyncio.Event(), asyncio.Event()

    async def wait_first(*given):
        if not begun.is_set():
            begun.set()
            await go.wait()
        return await advance(*given)

    monkeypatch.setattr(outbox, "advance", wait_first)
    giving = asyncio.ensure_future(give(parts, lab, key))
    await asyncio.wait_for(begun.wait(), 10)
    await parts.sql("UPDATE api_keys SET expire_time = clock_timestamp() WHERE id = $1", key.id)
    assert await expiry.run_once() == 1
    go.set()
    assert await refusal(giving) is Reason.API_KEY_ENDED
    assert not [t for t in await projected(database_url, tenant.id) if key.id in str(t)]
