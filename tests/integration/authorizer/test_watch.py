"""Watching changes, at positions that a test moves: what is told, when, to whom, and from where it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import pytest

from pemba.errors import Forbidden, NotFound, PembaError, PreconditionFailed, RateLimited, Reason, Unavailable
from pemba.model import Caller, Role, SystemScope, Tenant, UserId, Workspace
from pemba.service import watch
from pemba.service.role_change import RoleAssignment
from pemba.service.watch import Watched, WatchService
from pemba.service.watched import About
from pemba.storage import delivery, outbox
from tests.integration.authorizer.conftest import Followed
from tests.integration.conftest import SYSTEM, ref, subject
from tests.truth import as_owner

SECONDS = 10.0
HEARTBEAT = 0.3


class Tail:
    """One watch, read as a test likes."""

    def __init__(self, messages) -> None:
        self._messages = messages

    async def message(self) -> Watched:
        async with asyncio.timeout(SECONDS):
            return await anext(self._messages)

    async def change(self) -> Watched:
        """The next that is no heartbeat."""
        async with asyncio.timeout(SECONDS):
            while (told := await self.message()).row is None:
                pass
        return told

    async def heartbeat(self) -> Watched:
        """The next, which tells of no change."""
        told = await self.message()
        assert told.row is None, told
        return told

    async def end(self) -> PembaError:
        """What it ends with; nothing more is told before."""
        try:
            told = await self.change()
        except PembaError as error:
            return error
        pytest.fail(f"told {told}")


class Watching:
    """A tenant with a workspace `eng`, whose feed looks when told to."""

    def __init__(self, followed: Followed, tenant: Tenant, root: Workspace) -> None:
        self.followed, self.parts, self.feed = followed, followed.parts, followed.feed
        self.tenant, self.root = tenant, root
        self.service = WatchService(self.parts.database, self.parts.signer, self.feed, 20, HEARTBEAT)

    async def in_force(self, up_to: int | None = None) -> int:
        """Delivered up to there, or all of it, and known to the feed; the number."""
        async with self.parts.database.begin(SystemScope("test")) as tx:
            head = await outbox.head(tx, self.tenant.id)
        await self.followed.deliver(self.tenant, seq=up_to or head)
        await self.feed.poll()
        return up_to or head

    def about(self, on: Workspace | None = None, user: str = "") -> About:
        return About(self.tenant.id, on.id if on else None, UserId(user) if user else None)

    @asynccontextmanager
    async def tail(self, about: About, caller: Caller = SYSTEM, cursor: str = "") -> AsyncIterator[Tail]:
        """After its first message."""
        async with aclosing(self.service.changes(caller, about, cursor)) as messages:
            tail = Tail(messages)
            await tail.heartbeat()
            yield tail

    async def look_no_more(self) -> None:
        for task in self.looking:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def caller(self, user: str) -> Caller:
        return self.parts.acting(user)


@pytest.fixture
async def watching(followed: Followed) -> AsyncIterator[Watching]:
    tenant, root = await followed.parts.tenant()
    made = Watching(followed, tenant, root)
    made.eng = await followed.parts.workspace(root, "eng")
    await made.in_force()
    made.looking = [asyncio.create_task(made.service.run()), asyncio.create_task(made.feed.run())]
    yield made
    await made.look_no_more()


def users_of(about: About, told: Watched) -> list[tuple[str, str]]:
    """Whose roles changed, and to what."""
    return [
        ((each.after or each.before)["subject"]["id"], each.after["role"] if each.after else "gone")
        for each in about.records(told.row)
    ]


async def test_a_change_is_told_once_it_is_in_force_and_not_before(watching: Watching) -> None:
    about = watching.about(watching.eng)
    async with watching.tail(about) as tail:
        granted = await watching.parts.role(watching.eng, "bob", Role.VIEWER)
        await watching.feed.poll()
        await tail.heartbeat()
        await watching.in_force()
        told = await tail.change()
    assert users_of(about, told) == [("bob", "viewer")]
    assert told.row.method == "SetRole"
    assert told.token == granted.token


async def test_changes_come_in_order_and_only_those_of_what_is_watched(watching: Watching) -> None:
    parts, about = watching.parts, watching.about(watching.eng)
    other = await parts.workspace(watching.root, "ops")
    async with watching.tail(about) as tail:
        await parts.role(watching.eng, "bob", Role.VIEWER)
        await parts.role(other, "bob", Role.VIEWER)
        await parts.role(watching.eng, "bob", Role.ADMIN)
        await parts.remove(watching.eng, "bob")
        await watching.in_force()
        told = [await tail.change() for _ in range(3)]
        await tail.heartbeat()
    assert [users_of(about, each) for each in told] == [[("bob", "viewer")], [("bob", "admin")], [("bob", "gone")]]


async def test_a_change_of_several_rows_is_told_after_the_last_of_them(watching: Watching) -> None:
    assignments = [
        RoleAssignment(ref(watching.eng), subject(f"u{n:03}"), Role.VIEWER)
        for n in range(outbox.MAX_ROW_OPERATIONS + 1)
    ]
    about = watching.about(watching.eng)
    async with watching.tail(about) as tail:
        await watching.parts.memberships.set_roles(
            SYSTEM, watching.tenant.id, assignments=assignments, options=watching.parts.options("SetRoles")
        )
        last = await watching.parts.role(watching.eng, "zoe", Role.VIEWER)
        [head] = await watching.parts.sql("SELECT head_seq FROM tenant_head WHERE tenant_id = $1", watching.tenant.id)
        await watching.in_force(head[0] - 2)  # the first of its two rows
        await tail.heartbeat()
        await watching.in_force()
        first, second, zoe = [await tail.change() for _ in range(3)]
    assert [(each.row.part, each.row.parts) for each in (first, second, zoe)] == [(0, 2), (1, 2), (0, 1)]
    assert first.token == second.token
    assert zoe.token == last.token
    assert len(about.records(first.row)) == len(assignments)
    assert [len(about.operations(each.row)) for each in (first, second)] == [500, 1]


async def test_from_any_cursor_it_goes_on_without_a_gap_and_without_a_repetition(watching: Watching) -> None:
    about = watching.about(watching.eng)
    async with watching.tail(about) as tail:
        started = (await tail.heartbeat()).cursor
        for n in range(5):
            await watching.parts.role(watching.eng, f"u{n}", Role.VIEWER)
        await watching.in_force()
        told = [await tail.change() for _ in range(5)]
    cursors = [started, *(each.cursor for each in told)]
    for done, cursor in enumerate(cursors):
        async with watching.tail(about, cursor=cursor) as tail:
            again = [await tail.change() for _ in range(5 - done)]
            await tail.heartbeat()
        assert [each.row.seq for each in again] == [each.row.seq for each in told[done:]]


async def test_more_than_one_stretch_of_changes_is_told_without_waiting_for_news(
    watching: Watching, monkeypatch
) -> None:
    from pemba.storage import changes

    monkeypatch.setattr(changes, "MAX_FOUND", 2)
    monkeypatch.setattr(changes, "MAX_LOOKED", 3)
    about = watching.about(watching.eng)
    other = await watching.parts.workspace(watching.root, "ops")
    async with watching.tail(about) as tail:
        cursor = (await tail.heartbeat()).cursor
    for n in range(12):
        await watching.parts.role(other if n in (4, 5, 6, 7) else watching.eng, f"u{n}", Role.VIEWER)
    await watching.in_force()
    started = time.monotonic()
    async with watching.tail(about, cursor=cursor) as tail:
        told = [users_of(about, await tail.change())[0][0] for _ in range(8)]
    assert told == ["u0", "u1", "u2", "u3", "u8", "u9", "u10", "u11"]
    assert time.monotonic() - started < 5


async def test_an_idle_watchs_cursor_gets_on(watching: Watching) -> None:
    """By the heartbeats: what changed elsewhere may be deleted, and the watch goes on all the same."""
    about = watching.about(watching.eng)
    other = await watching.parts.workspace(watching.root, "ops")
    async with watching.tail(about) as tail:
        old = (await tail.heartbeat()).cursor
        await watching.parts.role(other, "bob", Role.VIEWER)
        await watching.in_force()
        while (new := (await tail.heartbeat()).cursor) == old:
            pass
    await prune(watching)
    await watching.parts.role(watching.eng, "bob", Role.VIEWER)
    await watching.in_force()
    async with watching.tail(about, cursor=new) as tail:
        assert users_of(about, await tail.change()) == [("bob", "viewer")]
    assert await refused(watching, about, old) is Reason.CURSOR_EXPIRED


async def prune(watching: Watching) -> None:
    """Everything that the audit has."""
    async with watching.parts.database.begin_relay() as tx:
        await delivery.prune_audit(tx, -60, 1000)


async def refused(watching: Watching, about: About, cursor: str, caller: Caller = SYSTEM) -> Reason:
    async with aclosing(watching.service.changes(caller, about, cursor)) as messages:
        return (await Tail(messages).end()).reason


async def test_a_cursor_is_of_one_watch_of_one_user(watching: Watching) -> None:
    await watching.parts.role(watching.eng, "bob", Role.VIEWER)
    about = watching.about(watching.eng)
    async with watching.tail(about) as tail:
        cursor = (await tail.heartbeat()).cursor
    assert await refused(watching, about, "x") is Reason.TOKEN_INVALID
    assert await refused(watching, watching.about(watching.root), cursor) is Reason.INVALID_FIELD
    assert await refused(watching, about, cursor, watching.caller("bob")) is Reason.INVALID_FIELD


async def test_in_another_life_of_the_database_no_cursor_of_before_counts(watching: Watching) -> None:
    about = watching.about(watching.eng)
    async with watching.tail(about) as tail:
        cursor = (await tail.heartbeat()).cursor
        await watching.followed.new_life()
        await watching.feed.poll()
        ended = await tail.end()
    assert (type(ended), ended.reason) == (PreconditionFailed, Reason.CURSOR_EXPIRED)
    assert await refused(watching, about, cursor) is Reason.CURSOR_EXPIRED


async def test_what_cannot_be_in_force_is_held_back_and_told_afterwards(watching: Watching) -> None:
    about = watching.about(watching.eng)
    at = await watching.in_force()
    async with watching.tail(about) as tail:
        for user in ("ann", "bob", "cid"):
            await watching.parts.role(watching.eng, user, Role.VIEWER)
        park = "UPDATE tenant_delivery SET parked_from = $2, parked_under = $3 WHERE tenant_id = $1"
        await as_owner(watching.followed.url, "tenant_delivery", park, watching.tenant.id, at + 2, 1)
        await watching.in_force()
        told = await tail.change()
        assert (users_of(about, told), told.held_back) == ([("ann", "viewer")], Reason.TENANT_PARKED)
        assert (await tail.heartbeat()).held_back is Reason.TENANT_PARKED
        await as_owner(watching.followed.url, "tenant_delivery", park, watching.tenant.id, None, None)
        await watching.parts.role(watching.eng, "dan", Role.VIEWER)
        await watching.in_force()
        told = [await tail.change() for _ in range(3)]
    assert [users_of(about, each)[0][0] for each in told] == ["bob", "cid", "dan"]
    assert {each.held_back for each in told} == {None}


# -- who may watch ------------------------------------------------------------------------------------------


async def _role(w: Watching) -> Callable[[], Awaitable[object]]:
    await w.parts.role(w.eng, "bob", Role.VIEWER)
    return lambda: w.parts.remove(w.eng, "bob")


async def _role_above(w: Watching) -> Callable[[], Awaitable[object]]:
    await w.parts.role(w.root, "bob", Role.VIEWER)
    return lambda: w.parts.remove(w.root, "bob")


async def _group(w: Watching) -> Callable[[], Awaitable[object]]:
    group = await w.parts.group(w.tenant, "team", "bob")
    await w.parts.role(w.eng, group, Role.VIEWER)
    return lambda: w.parts.leave(group, "bob")


async def _share(w: Watching) -> Callable[[], Awaitable[object]]:
    other = await w.parts.workspace(w.root, "guests")
    await w.parts.role(other, "bob", Role.VIEWER)
    share = (await w.parts.share(w.eng, other)).record
    return lambda: w.parts.revoke(share)


async def _suspended(w: Watching) -> Callable[[], Awaitable[object]]:
    await w.parts.role(w.eng, "bob", Role.VIEWER)

    async def suspend() -> None:
        await w.parts.suspend("bob")
        await w.feed.poll()

    return suspend


async def _deleted(w: Watching) -> Callable[[], Awaitable[object]]:
    await w.parts.role(w.eng, "bob", Role.VIEWER)
    return lambda: w.parts.workspaces.delete_workspace(
        SYSTEM, w.tenant.id, w.eng.id, options=w.parts.options("DeleteWorkspace")
    )


@pytest.mark.parametrize(
    "way", [_role, _role_above, _group, _share, _suspended, _deleted], ids=lambda way: way.__name__
)
async def test_a_watch_ends_within_a_second_of_the_loss_of_view_though_nothing_is_delivered(
    watching: Watching, way
) -> None:
    watching.service.heartbeat_seconds = 60  # at which it would find out as well
    lose = await way(watching)
    await watching.in_force()
    about = watching.about(watching.eng)
    async with watching.tail(about, watching.caller("bob")) as tail:
        await watching.parts.role(watching.eng, "carol", Role.VIEWER)
        await watching.in_force()
        assert users_of(about, await tail.change()) == [("carol", "viewer")]
        ending = asyncio.create_task(tail.end())
        await lose()
        lost = time.monotonic()
        await watching.parts.role(watching.root, "dan", Role.VIEWER)
        ended = await ending
        seconds = time.monotonic() - lost
    assert isinstance(ended, NotFound)
    assert seconds < 1


async def test_who_takes_long_is_asked_again_before_the_next_is_told(watching: Watching, monkeypatch) -> None:
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    parts, about = watching.parts, watching.about(watching.eng)
    await parts.role(watching.eng, "bob", Role.VIEWER)
    await watching.in_force()
    async with watching.tail(about, watching.caller("bob")) as tail:
        for user in ("ann", "cid"):
            await parts.role(watching.eng, user, Role.VIEWER)
        await watching.in_force()
        assert users_of(about, await tail.change()) == [("ann", "viewer")]
        await parts.remove(watching.eng, "bob")
        assert isinstance(await tail.end(), NotFound), "cid was read already"


async def test_who_may_not_see_it_is_told_no_more_than_of_what_is_not_there(watching: Watching) -> None:
    nowhere = replace(watching.eng, id="ws_01h455vb4pex5vsknk084sn02q")
    messages = []
    for on in (watching.eng, nowhere):
        async with aclosing(watching.service.changes(watching.caller("eve"), watching.about(on), "")) as told:
            with pytest.raises(NotFound) as caught:
                await anext(told)
        messages.append(caught.value.message.replace(on.id, "X"))
    assert messages[0] == messages[1]
    with pytest.raises(NotFound):
        async with aclosing(watching.service.changes(SYSTEM, watching.about(nowhere), "")) as told:
            await anext(told)


async def test_users_watch_what_belongs_to_themselves_and_tenant_admins_anybody(watching: Watching) -> None:
    parts = watching.parts
    await parts.role(watching.tenant, "mia", Role.MEMBER)
    await parts.role(watching.eng, "bob", Role.VIEWER)
    await watching.in_force()
    about = watching.about(user="bob")
    async with (
        watching.tail(about, watching.caller("bob")) as own,
        watching.tail(about, watching.caller("alice")) as seen,
    ):
        group = await parts.group(watching.tenant, "team", "bob", "eve")
        await parts.role(watching.eng, "eve", Role.VIEWER)
        mine = await parts.workspace(watching.root, "bobs", owner="bob")
        await watching.in_force()
        told = [await own.change() for _ in range(2)]
        assert [(await seen.change()).cursor for _ in range(2)] != []
    seat, owner = (about.records(each.row) for each in told)
    assert [(each.kind, each.after["group_id"]) for each in seat] == [("group_member", group.id)]
    assert [(each.kind, each.after["workspace_id"], each.after["role"]) for each in owner] == [
        ("membership", mine.id, "owner")
    ]
    for caller, of in ((watching.caller("mia"), "bob"), (watching.caller("nobody"), "nobody")):
        async with aclosing(watching.service.changes(caller, watching.about(user=of), "")) as messages:
            with pytest.raises(NotFound):
                await anext(messages)


async def test_all_of_a_tenant_is_for_its_admins(watching: Watching) -> None:
    parts, about = watching.parts, watching.about()
    await parts.role(watching.tenant, "mia", Role.MEMBER)
    await watching.in_force()
    async with watching.tail(about, watching.caller("alice")) as tail:
        await parts.role(watching.eng, "bob", Role.VIEWER)
        await parts.tenants.update_tenant(
            SYSTEM, watching.tenant.id, name="Acme 2", options=parts.options("UpdateTenant")
        )
        await watching.in_force()
        kinds = [[each.kind for each in about.records((await tail.change()).row)] for _ in range(2)]
    assert kinds == [["membership"], ["tenant"]]
    for user, error in (("mia", Forbidden), ("eve", NotFound)):
        async with aclosing(watching.service.changes(watching.caller(user), about, "")) as messages:
            with pytest.raises(error):
                await anext(messages)


async def test_a_key_of_another_tenant_finds_nothing(watching: Watching) -> None:
    other, _ = await watching.parts.tenant()
    key = replace(SYSTEM, tenant_id=other.id)
    async with aclosing(watching.service.changes(key, watching.about(watching.eng), "")) as messages:
        with pytest.raises(NotFound):
            await anext(messages)
    async with aclosing(watching.service.positions(key, [watching.tenant.id])) as messages:
        with pytest.raises(NotFound):
            await anext(messages)


async def test_a_tenants_key_watches_as_an_admin_does_and_a_workspaces_key_that_and_below(watching: Watching) -> None:
    await watching.parts.role(watching.eng, "bob", Role.VIEWER)
    below = await watching.parts.workspace(watching.eng, "below")
    await watching.in_force()
    of_tenant = replace(SYSTEM, tenant_id=watching.tenant.id)
    of_eng = replace(of_tenant, workspace_id=watching.eng.id)
    as_bob = replace(of_eng, acting_user=UserId("bob"))
    on_root, of_bob = watching.about(watching.root), watching.about(user="bob")
    for caller, seen in (
        (of_tenant, (watching.about(), on_root, of_bob)),
        (of_eng, (watching.about(watching.eng), watching.about(below))),
        (as_bob, (watching.about(watching.eng),)),
    ):
        for about in seen:
            async with watching.tail(about, caller):
                pass
    for caller, about in (
        *((of_eng, about) for about in (watching.about(), on_root, of_bob)),
        *((as_bob, about) for about in (watching.about(), on_root, of_bob)),
    ):
        async with aclosing(watching.service.changes(caller, about, "")) as messages:
            with pytest.raises(NotFound):
                await anext(messages)


async def test_one_caller_takes_a_fifth_of_the_places_and_gives_them_back(watching: Watching) -> None:
    about = watching.about(watching.eng)
    async with watching.tail(about), watching.tail(about), watching.tail(about), watching.tail(about):
        async with aclosing(watching.service.changes(SYSTEM, about, "")) as messages:
            with pytest.raises(RateLimited):
                await anext(messages)
        async with watching.tail(about, watching.caller("alice")):
            pass
    async with watching.tail(about):
        pass


async def test_a_stopping_server_ends_every_watch_at_once(watching: Watching) -> None:
    async with watching.tail(watching.about(watching.eng)) as tail:
        ending = asyncio.create_task(tail.end())
        await asyncio.sleep(0)
        stopped = time.monotonic()
        watching.service.stop()
        ended = await ending
    assert isinstance(ended, Unavailable)
    assert time.monotonic() - stopped < HEARTBEAT


async def test_nobody_looks_more_often_for_the_sake_of_a_watch(watching: Watching) -> None:
    """Those who wait for tokens do make the feed look every 5 ms; a watch would for as long as it lasts."""
    async with watching.tail(watching.about(watching.eng)) as tail:
        await tail.heartbeat()
        assert not watching.feed._watchers._futures
        assert watching.feed.followers.streams() == {watching.tenant.id, "~"}
    assert not watching.feed.followers.streams()


# -- positions ----------------------------------------------------------------------------------------------


async def test_positions_are_told_at_once_as_they_move_and_in_between_that_nothing_does(watching: Watching) -> None:
    tenant = watching.tenant
    other, _ = await watching.parts.tenant()
    await watching.followed.deliver(other, seq=1)
    await watching.feed.poll()
    async with aclosing(watching.service.positions(SYSTEM, [tenant.id, other.id])) as messages:
        first = await anext(messages)
        assert {id_: p.delivered_seq for id_, p in first.moved.items()} == {tenant.id: 2, other.id: 1}
        await watching.feed.poll()
        assert (await anext(messages)).moved == {}
        await watching.parts.role(watching.eng, "bob", Role.VIEWER)
        await watching.in_force()
        while not (moved := (await anext(messages)).moved):
            pass
        assert {id_: p.delivered_seq for id_, p in moved.items()} == {tenant.id: 3}
        assert moved[tenant.id].serial > first.moved[tenant.id].serial
        await watching.followed.new_life("store_epoch")
        await watching.feed.poll()
        while not (moved := (await anext(messages)).moved):
            pass
        assert set(moved) == {tenant.id, other.id}, "in another life all are told again"


async def test_positions_are_for_whoever_belongs_to_the_tenant_and_for_as_long(watching: Watching) -> None:
    await watching.parts.role(watching.eng, "bob", Role.VIEWER)
    await watching.in_force()
    async with aclosing(watching.service.positions(watching.caller("eve"), [watching.tenant.id])) as messages:
        with pytest.raises(NotFound):
            await anext(messages)
    async with aclosing(watching.service.positions(watching.caller("bob"), [watching.tenant.id])) as messages:
        await anext(messages)
        await watching.parts.remove(watching.eng, "bob")
        lost = time.monotonic()
        with pytest.raises(NotFound):
            await until_it_ends(messages)
        assert time.monotonic() - lost < 1.1


async def until_it_ends(messages) -> None:
    async with asyncio.timeout(SECONDS):
        async for _ in messages:
            pass


async def test_positions_end_where_postgres_has_not_been_heard_of_for_a_second(watching: Watching, monkeypatch) -> None:
    async with aclosing(watching.service.positions(SYSTEM, [watching.tenant.id])) as messages:
        await anext(messages)
        await watching.look_no_more()
        watching.feed._pulse_at -= 1.5
        with pytest.raises(Unavailable):
            await anext(messages)
