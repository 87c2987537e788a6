"""Shares: whose they are to make, what stands in their way, and the tuples that they come to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from pemba.errors import AlreadyExists, ConcurrentUpdate, InvalidRequest, PembaError, Reason
from pemba.model import Role, Share, Tenant, Workspace
from pemba.storage import outbox
from tests.integration.conftest import SYSTEM, Parts
from tests.truth import as_owner

HOUR = 3600.0


@pytest.fixture
async def acme(parts: Parts) -> tuple[Tenant, Workspace]:
    return await parts.tenant()


@pytest.fixture
async def pair(parts: Parts, acme: tuple[Tenant, Workspace]) -> tuple[Workspace, Workspace]:
    """`lab`, owned by bob, and `guests`, owned by carol."""
    _, root = acme
    return await parts.workspace(root, "lab", owner="bob"), await parts.workspace(root, "guests", owner="carol")


async def refusal(doing) -> Reason:
    with pytest.raises(PembaError) as refused:
        await doing
    return refused.value.reason


async def listed(parts: Parts, workspace: Workspace, *, incoming: bool = False, size: int = 10) -> list[Share]:
    found: list[Share] = []
    token = ""
    while True:
        page = await parts.shares.list_shares(
            SYSTEM, workspace.tenant_id, workspace_id=workspace.id, incoming=incoming, page_size=size, page_token=token
        )
        found += page.records
        token = page.next_page_token
        if not token:
            return found


Expire = Callable[[Share], Awaitable[None]]


@pytest.fixture
def expire(database_url: str) -> Expire:
    """As if its time had come."""
    past = "UPDATE shares SET expire_time = date_trunc('second', now()) - interval '1 s' WHERE id = $1"
    return lambda share: as_owner(database_url, "shares", past, share.id)


# -- made and taken back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.VIEWER, Role.MEMBER, Role.ADMIN])
async def test_a_share_is_one_tuple_and_goes_with_it(parts: Parts, acme, pair, role: Role) -> None:
    tenant, _ = acme
    lab, guests = pair
    made = await parts.share(lab, guests, role, parts.acting("alice"))
    share = made.record
    assert (share.workspace_id, share.with_workspace_id, share.role) == (lab.id, guests.id, role)
    assert (share.expire_time, share.created_by, share.id[:4]) == (None, "alice", "shr_")
    tuple_ = f"shared_{role}@workspace:{guests.id}#roster"
    assert (await parts.operations(tenant))[-1] == [f"+{tuple_}"]
    found = await parts.shares.get_share(SYSTEM, tenant.id, share.id)
    assert found.record == share
    gone = await parts.revoke(share, parts.acting("bob"))
    assert gone.record == share
    assert (await parts.operations(tenant))[-1] == [f"-{tuple_}"]
    assert made.token != gone.token != ""
    assert await refusal(parts.shares.get_share(SYSTEM, tenant.id, share.id)) is Reason.NOT_FOUND
    assert await refusal(parts.revoke(share)) is Reason.NOT_FOUND


async def test_the_tuple_says_until_when_in_whole_seconds_and_its_deletion_does_not(parts: Parts, acme, pair) -> None:
    tenant, _ = acme
    made = (await parts.share(*pair, seconds=HOUR)).record
    fraction = made.expire_time + timedelta(days=1, microseconds=999_999)
    named = {"workspace_id": pair[1].id, "with_workspace_id": pair[0].id, "role": Role.VIEWER}
    back = await parts.shares.create_share(
        SYSTEM, tenant.id, **named, expire_time=fraction, options=parts.options(validate_only=True)
    )
    assert back.record.expire_time == made.expire_time + timedelta(days=1)
    [[told]] = (await parts.operations(tenant))[-1:]
    assert told.endswith(f"#roster[expiration:{made.expire_time:%Y-%m-%dT%H:%M:%SZ}]")
    await parts.revoke(made)
    assert (await parts.operations(tenant))[-1] == ["-" + told[1:].partition("[")[0]]


@pytest.mark.parametrize("seconds", [-HOUR, -1.0])
async def test_an_expiry_that_is_not_in_the_future_is_refused(parts: Parts, pair, seconds: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await parts.share(*pair, seconds=seconds)
    assert [v.field for v in refused.value.violations] == ["expire_time"]


async def test_there_is_one_share_of_two_in_each_direction(parts: Parts, pair) -> None:
    lab, guests = pair
    there = (await parts.share(lab, guests)).record
    back = (await parts.share(guests, lab, Role.ADMIN)).record
    for role in (Role.VIEWER, Role.ADMIN):
        with pytest.raises(AlreadyExists) as refused:
            await parts.share(lab, guests, role, seconds=HOUR)
        assert (refused.value.reason, refused.value.metadata) == (Reason.SHARE_EXISTS, {"share": there.id})
    assert await listed(parts, lab) == [there] == await listed(parts, guests, incoming=True)
    assert await listed(parts, guests) == [back] == await listed(parts, lab, incoming=True)


async def test_shares_are_listed_in_pages_the_oldest_first(parts: Parts, acme, pair) -> None:
    _, root = acme
    lab, guests = pair
    others = [guests, root, *[await parts.workspace(root, f"more-{n}") for n in range(3)]]
    made = [(await parts.share(lab, other)).record for other in others]
    for size in (1, 2, 5, 10):
        assert await listed(parts, lab, size=size) == made


async def test_a_share_is_audited_before_and_after(parts: Parts, acme, pair) -> None:
    tenant, _ = acme
    made = (await parts.share(*pair, seconds=HOUR)).record
    await parts.revoke(made)
    rows = await parts.sql("SELECT * FROM audit WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 2", tenant.id)
    revoked, created = ((r["method"], r["object"], r["before"], r["after"]) for r in rows)
    assert created[:3] == ("CreateShare", f"share:{made.id}", None)
    assert revoked[:2] == ("RevokeShare", f"share:{made.id}")
    assert created[3] == revoked[2]
    assert (created[3]["id"], created[3]["with_workspace_id"], revoked[3]) == (made.id, pair[1].id, None)


async def test_the_same_request_id_shares_once_and_a_dry_run_never(parts: Parts, acme, pair) -> None:
    tenant, _ = acme
    dry = await parts.share(*pair, validate_only=True)
    assert (dry.token, await listed(parts, pair[0])) == ("", [])
    first = await parts.share(*pair, request_id="r-1")
    again = await parts.share(*pair, request_id="r-1")
    assert again == replace(first, replayed=True)
    share = first.record
    with pytest.raises(ConcurrentUpdate):
        await parts.revoke(share, etag="another")
    assert (await parts.revoke(share, etag=share.etag, validate_only=True)).token == ""
    assert await listed(parts, pair[0]) == [share]
    await parts.revoke(share, etag=share.etag, request_id="r-2")
    assert (await parts.revoke(share, etag=share.etag, request_id="r-2")).replayed
    assert (await parts.operations(tenant))[-1][0].startswith("-")


# -- whose it is ------------------------------------------------------------------------------------------


async def test_who_owns_the_workspace_and_sees_the_other_may_share_it(parts: Parts, pair) -> None:
    lab, guests = pair
    bob, alice = parts.acting("bob"), parts.acting("alice")
    assert await refusal(parts.share(lab, guests, caller=bob)) is Reason.NOT_FOUND, "bob does not see guests"
    await parts.role(guests, "bob", Role.VIEWER)
    await parts.role(lab, "dave", Role.ADMIN)
    await parts.role(guests, "dave", Role.ADMIN)
    assert await refusal(parts.share(lab, guests, caller=parts.acting("dave"))) is Reason.ROLE_MISSING
    share = (await parts.share(lab, guests, caller=bob)).record
    assert await refusal(parts.revoke(share, parts.acting("dave"))) is Reason.ROLE_MISSING
    assert await refusal(parts.revoke(share, parts.acting("carol"))) is Reason.ROLE_MISSING, "the others' owner"
    assert await refusal(parts.revoke(share, parts.acting("eve"))) is Reason.NOT_FOUND
    await parts.revoke(share, alice)


async def test_a_root_is_shared_by_the_tenants_admins_alone(parts: Parts, acme, pair) -> None:
    _, root = acme
    lab, _ = pair
    await parts.role(root, "bob", Role.OWNER)
    assert await refusal(parts.share(root, lab, caller=parts.acting("bob"))) is Reason.ROLE_MISSING
    share = (await parts.share(root, lab, caller=parts.acting("alice"))).record
    assert await refusal(parts.revoke(share, parts.acting("bob"))) is Reason.ROLE_MISSING
    await parts.revoke(share, parts.acting("alice"))
    await parts.share(lab, root, caller=parts.acting("alice"))


async def test_who_sees_either_workspace_sees_the_share(parts: Parts, acme, pair) -> None:
    tenant, root = acme
    lab, guests = pair
    elsewhere = await parts.workspace(root, "elsewhere", owner="eve")
    share = (await parts.share(lab, guests)).record

    async def sees(user: str) -> Share:
        return (await parts.shares.get_share(parts.acting(user), tenant.id, share.id)).record

    for user in ("alice", "bob", "carol"):
        assert await sees(user) == share
    for user in ("eve", "nobody"):
        assert await refusal(sees(user)) is Reason.NOT_FOUND
    for incoming, place in ((False, lab), (True, guests)):
        asked = {"workspace_id": place.id, "incoming": incoming, "page_size": 5, "page_token": ""}
        assert await refusal(parts.shares.list_shares(parts.acting("eve"), tenant.id, **asked)) is Reason.NOT_FOUND
    assert await listed(parts, elsewhere) == []


async def test_another_tenants_workspace_and_share_are_not_found(parts: Parts, pair) -> None:
    lab, guests = pair
    _, other_root = await parts.tenant("alice")
    assert await refusal(parts.share(lab, other_root)) is Reason.NOT_FOUND
    assert await refusal(parts.share(other_root, lab)) is Reason.NOT_FOUND
    share = (await parts.share(lab, guests)).record
    assert await refusal(parts.revoke(replace(share, tenant_id=other_root.tenant_id))) is Reason.NOT_FOUND


async def test_a_workspace_is_not_shared_with_itself(parts: Parts, pair) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await parts.share(pair[0], pair[0])
    assert [v.field for v in refused.value.violations] == ["with_workspace"]


# -- archive, delete, move --------------------------------------------------------------------------------


async def archive(parts: Parts, workspace: Workspace, verb: str = "archive"):
    change = getattr(parts.workspaces, f"{verb}_workspace")
    return await change(SYSTEM, workspace.tenant_id, workspace.id, options=parts.options())


def shared(operations: list[str]) -> list[str]:
    return [o for o in operations if "shared_" in o]


@pytest.mark.parametrize("side", [0, 1], ids=["shared", "shared_with"])
async def test_while_either_is_archived_a_share_projects_nothing(parts: Parts, acme, pair, side: int) -> None:
    tenant, _ = acme
    lab, guests = pair
    await parts.share(lab, guests)
    tuple_ = f"shared_viewer@workspace:{guests.id}#roster"
    await archive(parts, pair[side])
    assert shared((await parts.operations(tenant))[-1]) == [f"-{tuple_}"]
    await archive(parts, pair[1 - side])
    assert shared((await parts.operations(tenant))[-1]) == [], "it is out already"
    await archive(parts, pair[side], "unarchive")
    assert shared((await parts.operations(tenant))[-1]) == [], "the other is archived still"
    await archive(parts, pair[1 - side], "unarchive")
    assert shared((await parts.operations(tenant))[-1]) == [f"+{tuple_}"]


async def test_what_is_archived_is_neither_shared_nor_shared_with_nor_taken_back(parts: Parts, acme, pair) -> None:
    tenant, _ = acme
    lab, guests = pair
    share = (await parts.share(lab, guests)).record
    await archive(parts, lab)
    assert await refusal(parts.revoke(share)) is Reason.WORKSPACE_ARCHIVED
    assert await refusal(parts.share(guests, lab)) is Reason.WORKSPACE_ARCHIVED
    await archive(parts, lab, "unarchive")
    await archive(parts, guests)
    changed = await parts.revoke(share)
    assert ((await parts.operations(tenant))[-1], changed.token) == ([], ""), "no check can see it"
    assert await refusal(parts.share(lab, guests)) is Reason.WORKSPACE_ARCHIVED


@pytest.mark.parametrize("side", [0, 1], ids=["shared", "shared_with"])
async def test_deleting_either_takes_the_share_along_in_the_same_row(parts: Parts, acme, pair, side: int) -> None:
    tenant, _ = acme
    lab, guests = pair
    share = (await parts.share(lab, guests, seconds=HOUR)).record
    await archive(parts, pair[side], "delete")
    assert shared((await parts.operations(tenant))[-1]) == [f"-shared_viewer@workspace:{guests.id}#roster"]
    assert await parts.sql("SELECT FROM shares") == []
    assert await refusal(parts.shares.get_share(SYSTEM, tenant.id, share.id)) is Reason.NOT_FOUND


async def test_moving_either_keeps_the_share(parts: Parts, acme, pair) -> None:
    tenant, _ = acme
    lab, guests = pair
    share = (await parts.share(lab, guests)).record
    await parts.workspaces.move_workspace(SYSTEM, tenant.id, lab.id, new_parent_id=guests.id, options=parts.options())
    assert shared((await parts.operations(tenant))[-1]) == []
    assert await listed(parts, lab) == [share]


# -- expiry -----------------------------------------------------------------------------------------------


async def test_what_is_due_gives_nothing_any_more_though_nobody_has_swept(
    parts: Parts, acme, pair, expire: Expire
) -> None:
    """The rights of users are decided from the records."""
    tenant, _ = acme
    lab, guests = pair
    share = (await parts.share(lab, guests, Role.ADMIN, seconds=HOUR)).record
    carol = parts.acting("carol")
    await parts.workspaces.update_workspace(carol, tenant.id, lab.id, name="Ours", options=parts.options())
    await expire(share)
    rename = parts.workspaces.update_workspace(carol, tenant.id, lab.id, name="Not ours", options=parts.options())
    assert await refusal(rename) is Reason.NOT_FOUND
    assert await refusal(parts.revoke(share)) is Reason.NOT_FOUND
    assert await listed(parts, lab) == await listed(parts, guests, incoming=True) == []


async def test_an_expired_share_makes_room_for_another_in_one_change(parts: Parts, acme, pair, expire: Expire) -> None:
    tenant, _ = acme
    old = (await parts.share(*pair, Role.ADMIN, seconds=HOUR)).record
    await expire(old)
    new = (await parts.share(*pair, Role.VIEWER)).record
    roster = f"@workspace:{pair[1].id}#roster"
    assert (await parts.operations(tenant))[-1] == [f"-shared_admin{roster}", f"+shared_viewer{roster}"]
    assert await listed(parts, pair[0]) == [new]
    [row] = await parts.sql("SELECT before, after FROM audit WHERE tenant_id = $1 ORDER BY seq DESC LIMIT 1", tenant.id)
    assert (row["before"]["id"], row["after"]["id"]) == (old.id, new.id)


async def test_the_sweeper_withdraws_what_is_due_as_one_audited_change_of_each_tenant(
    parts: Parts, expire: Expire
) -> None:
    due: dict[str, list[str]] = {}
    stays = set()
    for _ in range(2):
        tenant, root = await parts.tenant()
        places = [await parts.workspace(root, f"place-{n}") for n in range(4)]
        made = [(await parts.share(root, place, seconds=HOUR)).record for place in places]
        stays |= {(await parts.share(places[0], root)).record.id, made[-1].id}
        for share in made[:3]:
            await expire(share)
        due[tenant.id] = [share.id for share in made[:3]]
        await parts.workspaces.archive_workspace(SYSTEM, tenant.id, places[0].id, options=parts.options())
    suspended = next(iter(due))
    await parts.tenants.suspend_tenant(SYSTEM, suspended, options=parts.options())
    heads = {tenant_id: await head(parts, tenant_id) for tenant_id in due}
    assert await parts.expiry.run_once() == 6
    assert await parts.expiry.run_once() == 0
    assert {r["id"] for r in await parts.sql("SELECT id FROM shares")} == stays
    for tenant_id, ids in due.items():
        assert await head(parts, tenant_id) == heads[tenant_id] + 1, "an empty look takes no number"
        [row] = await parts.sql(
            "SELECT * FROM audit WHERE tenant_id = $1 AND seq = $2", tenant_id, heads[tenant_id] + 1
        )
        assert (row["method"], row["principal"], row["after"]) == ("ExpireShares", "pemba:maintenance", None)
        assert [share["id"] for share in row["before"]] == ids
        assert [o["op"] for o in row["ops"]] == ["delete"] * 2, "the archived one has no tuple"


async def head(parts: Parts, tenant_id: str) -> int:
    [row] = await parts.sql("SELECT head_seq FROM tenant_head WHERE tenant_id = $1", tenant_id)
    return row["head_seq"]


async def test_a_look_withdraws_no_more_of_a_tenant_than_a_row_holds(
    parts: Parts, acme, expire: Expire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemba.service.share_expiry.MAX_ROW_OPERATIONS", 2)
    _, root = acme
    for n in range(5):
        await expire((await parts.share(root, await parts.workspace(root, f"place-{n}"), seconds=HOUR)).record)
    assert [await parts.expiry.run_once() for _ in range(4)] == [2, 2, 1, 0]


async def test_it_is_known_how_long_it_is_to_the_next_expiry(parts: Parts, pair, expire: Expire) -> None:
    assert await parts.expiry.seconds_left() == float("inf")
    share = (await parts.share(*pair, seconds=HOUR)).record
    assert HOUR - 60 < await parts.expiry.seconds_left() <= HOUR + 1
    await expire(share)
    assert await parts.expiry.seconds_left() < 0


# -- what each row says of the next expiry ----------------------------------------------------------------


async def next_expiries(parts: Parts, tenant: Tenant) -> list:
    rows = await parts.sql("SELECT next_expiry FROM outbox WHERE tenant_id = $1 ORDER BY seq", tenant.id)
    return [row["next_expiry"] for row in rows]


async def test_each_row_says_when_the_tenants_next_share_expires(parts: Parts, acme, pair) -> None:
    tenant, root = acme
    lab, guests = pair
    later = (await parts.share(lab, guests, seconds=2 * HOUR)).record
    sooner = (await parts.share(guests, lab, seconds=HOUR)).record
    await parts.share(root, lab)
    await parts.role(lab, "dave", Role.VIEWER)
    await parts.revoke(sooner)
    await archive(parts, lab, "delete")
    said = (await next_expiries(parts, tenant))[-7:]
    times = [None, later.expire_time, *[sooner.expire_time] * 3, later.expire_time, None]
    assert said == times


async def test_between_the_rows_of_one_change_anything_may_expire(
    parts: Parts, acme, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tuple that goes with the last of them may expire after the first is in force, and no record tells of it."""
    tenant, root = acme
    lab, guests = [await parts.workspace(root, slug) for slug in ("lab", "guests")]
    await parts.share(lab, guests, seconds=HOUR)
    monkeypatch.setattr(outbox, "MAX_ROW_OPERATIONS", 1)
    await archive(parts, lab, "delete")
    first, last = (await next_expiries(parts, tenant))[-2:]
    assert (first.timestamp(), last) == (0, None)
