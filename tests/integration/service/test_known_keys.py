"""What servers know of API keys: never longer than it is so, and never at the price of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from pemba.authorizer import feed as feed_module
from pemba.authorizer.feed import Feed
from pemba.errors import Reason, Unauthenticated, Unavailable
from pemba.model import ApiKey, Credential, Scope, Tenant
from pemba.service import known_keys
from pemba.service.key_secrets import new_secret
from pemba.service.known_keys import KnownKeys
from pemba.storage import api_keys
from pemba.storage.database import SYSTEM_ROLE, Database
from tests.integration.conftest import Parts
from tests.integration.instruments import Gate, counted_statements
from tests.truth import as_owner, eventually

SECONDS = 10.0
SCOPES = (Scope.READ, Scope.CHECK)


@dataclass
class Server:
    """What one `serve` knows; it looks when the test says so."""

    feed: Feed
    keys: KnownKeys

    async def good(self, secret: str) -> Credential | None:
        return await self.keys.credential(secret)

    async def refusal(self, secret: str) -> Reason:
        with pytest.raises(Unauthenticated) as refused:
            await self.keys.credential(secret)
        return refused.value.reason


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LATE_SECONDS", 3600.0)


@pytest.fixture
async def start(parts: Parts, by_hand: None):
    async def make(**bounds: int) -> Server:
        feed = Feed(parts.database, outage_seconds=60)
        keys = KnownKeys(parts.database, feed, **bounds)
        feed.tell(keys.tell)
        await feed.poll()
        return Server(feed, keys)

    return make


@pytest.fixture
async def server(start) -> Server:
    return await start()


@pytest.fixture
async def acme(parts: Parts) -> Tenant:
    tenant, _ = await parts.tenant()
    return tenant


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Clock:
    """This host's, as feeds read it, moved on by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, self.ahead = feed_module.boot_seconds, 0.0
        monkeypatch.setattr(feed_module, "boot_seconds", lambda: real() + self.ahead)


@pytest.fixture(params=["tenant", "system", "user"])
async def issued(request: pytest.FixtureRequest, parts: Parts, acme: Tenant) -> tuple[str, ApiKey]:
    """A secret, and the key that it is of."""
    of = request.param
    if of == "user":
        await parts.role(acme, "bob", "member")
    made = await parts.key(None if of == "system" else acme, *SCOPES, user="bob" if of == "user" else "")
    return made.secret, made.changed.record


# -- what a secret stands for -----------------------------------------------------------------------------


async def test_a_secret_that_was_told_opens_what_its_key_is_for(server: Server, issued: tuple[str, ApiKey]) -> None:
    secret, key = issued
    for _ in range(2):
        credential = await server.good(secret)
        assert credential == Credential(
            f"api_key:{key.id}", frozenset(SCOPES), key.tenant_id, key.workspace_id, key.user_id
        )


async def test_no_other_secret_opens_anything(server: Server, issued: tuple[str, ApiKey]) -> None:
    secret, _ = issued
    last = secret[-1]
    for another in (new_secret().text, secret[:-1] + ("A" if last != "A" else "B"), new_secret().prefix + secret[14:]):
        assert await server.good(another) is None


async def test_what_was_looked_up_is_not_looked_up_again_whether_it_was_found_or_not(
    server: Server, issued: tuple[str, ApiKey]
) -> None:
    secret, unknown = issued[0], new_secret().text
    assert (await server.good(secret), await server.good(unknown)) != (None, None)
    async with counted_statements() as sent:
        assert await server.good(secret) is not None
        assert await server.good(unknown) is None
    assert sent == []


# -- how it ends ------------------------------------------------------------------------------------------


async def test_a_revoked_key_is_refused_by_every_server_at_its_next_look(
    parts: Parts, start, issued: tuple[str, ApiKey]
) -> None:
    secret, key = issued
    servers = [await start() for _ in range(2)]
    for server in servers:
        assert await server.good(secret) is not None
    await parts.revoke_key(key)
    for server in servers:
        await server.feed.poll()
        assert await server.refusal(secret) is Reason.KEY_REVOKED


async def test_the_server_that_revokes_refuses_before_it_answers(
    parts: Parts, server: Server, issued: tuple[str, ApiKey]
) -> None:
    secret, key = issued
    assert await server.good(secret) is not None
    parts.mutations.take_note = server.feed.look_again
    await parts.revoke_key(key)
    assert await server.refusal(secret) is Reason.KEY_REVOKED


async def test_the_keys_of_who_is_deactivated_are_refused(parts: Parts, server: Server) -> None:
    tenant, _ = await parts.tenant("bob")
    await parts.role(tenant, "carol", "admin")
    carols, bobs = [await parts.key(None, user=user) for user in ("carol", "bob")]
    await server.feed.poll()  # that they were made is a row as well
    await server.good(carols.secret)
    await server.good(bobs.secret)
    await parts.deactivate("carol")
    await server.feed.poll()
    assert await server.refusal(carols.secret) is Reason.KEY_REVOKED
    assert (await server.good(bobs.secret)).user_id == "bob"


async def test_the_keys_of_a_workspace_go_with_it(parts: Parts, server: Server) -> None:
    tenant, root = await parts.tenant()
    lab = await parts.workspace(root, "lab")
    made = await parts.key(tenant, workspace=lab)
    assert (await server.good(made.secret)).workspace_id == lab.id
    await parts.workspaces.delete_workspace(parts.system, tenant.id, lab.id, options=parts.options())
    await server.feed.poll()
    assert await server.good(made.secret) is None


async def test_a_key_expires_by_the_databases_clock_without_a_look(
    parts: Parts, server: Server, acme: Tenant, clock: Clock
) -> None:
    made = await parts.key(acme, until=datetime.now(UTC) + timedelta(seconds=30))
    assert await server.good(made.secret) is not None
    clock.ahead = 29
    assert await server.good(made.secret) is not None
    clock.ahead = 31
    assert await server.refusal(made.secret) is Reason.KEY_EXPIRED


async def test_after_a_rotation_the_secret_before_it_is_good_for_the_overlap_alone(
    parts: Parts, server: Server, issued: tuple[str, ApiKey], clock: Clock
) -> None:
    before, key = issued
    assert await server.good(before) is not None
    after = (await parts.rotate_key(key, seconds=30)).secret
    await server.feed.poll()
    assert await server.good(before) == await server.good(after)
    clock.ahead = 31
    assert await server.refusal(before) is Reason.KEY_REVOKED
    assert await server.good(after) is not None


async def test_a_rotation_without_an_overlap_ends_every_secret_before_it(
    parts: Parts, server: Server, issued: tuple[str, ApiKey]
) -> None:
    first, key = issued
    second = (await parts.rotate_key(key, seconds=60)).secret
    assert (await server.good(first), await server.good(second)) != (None, None)
    third = (await parts.rotate_key(key)).secret
    await server.feed.poll()
    assert await server.good(first) is None
    assert await server.refusal(second) is Reason.KEY_REVOKED
    assert await server.good(third) is not None


async def test_of_another_life_of_the_database_nothing_is_remembered(
    parts: Parts, server: Server, database_url: str, issued: tuple[str, ApiKey]
) -> None:
    """A restore: no row tells of it."""
    secret, unknown = issued[0], new_secret()
    assert (await server.good(secret), await server.good(unknown.text)) != (None, None)
    await as_owner(database_url, "api_keys", "UPDATE api_keys SET secret_hash = $1", unknown.hash)
    await as_owner(database_url, "installation", "UPDATE installation SET database_epoch = gen_random_uuid()")
    await server.feed.poll()
    assert await server.good(secret) is None
    assert await server.good(unknown.text) is not None


# -- at once ----------------------------------------------------------------------------------------------


@pytest.mark.race
async def test_what_was_read_before_a_revocation_is_not_remembered_after_it(
    parts: Parts, server: Server, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    """The lookup was under way when the feed told of the revocation: for the waiting call it is as of when it came."""
    secret, key = issued
    gate = Gate(monkeypatch, api_keys, "find")
    early = asyncio.ensure_future(server.good(secret))
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    await parts.revoke_key(key)
    await server.feed.poll()
    gate.open()
    assert await early is not None
    assert await server.refusal(secret) is Reason.KEY_REVOKED


@pytest.mark.race
async def test_who_comes_after_a_revocation_takes_no_answer_of_a_lookup_from_before_it(
    parts: Parts, server: Server, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    """Whether the feed has told of it or not."""
    secret, key = issued
    gate = Gate(monkeypatch, api_keys, "find")
    early = asyncio.ensure_future(server.good(secret))
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    await parts.revoke_key(key)
    late = asyncio.ensure_future(server.refusal(secret))
    await asyncio.sleep(0)
    gate.open()
    assert await early is not None
    assert await late is Reason.KEY_REVOKED


async def test_what_was_read_in_another_life_is_not_remembered(
    server: Server, database_url: str, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    secret, _ = issued
    gate = Gate(monkeypatch, api_keys, "find")
    early = asyncio.ensure_future(server.good(secret))
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    await as_owner(database_url, "api_keys", "UPDATE api_keys SET secret_hash = $1", new_secret().hash)
    await as_owner(database_url, "installation", "UPDATE installation SET database_epoch = gen_random_uuid()")
    await server.feed.poll()
    gate.open()
    await early
    assert await server.good(secret) is None


# -- bounds -----------------------------------------------------------------------------------------------


async def test_however_many_come_with_unknown_keys_one_statement_is_under_way_on_one_connection(
    parts: Parts, server: Server, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    """A flood waits for itself, and who comes with a good key waits for one statement."""
    gate = Gate(monkeypatch, api_keys, "find")
    async with counted_statements() as sent:
        flood = [asyncio.ensure_future(server.good(new_secret().text)) for _ in range(500)]
        await asyncio.wait_for(gate.reached.wait(), SECONDS)
        flood += [asyncio.ensure_future(server.good(new_secret().text)) for _ in range(500)]
        honest = asyncio.ensure_future(server.good(issued[0]))
        pool = parts.database._pools[SYSTEM_ROLE]
        await asyncio.sleep(0)
        assert pool.get_size() - pool.get_idle_size() == 1
        gate.open()
        assert await asyncio.wait_for(honest, SECONDS) is not None
        assert set(await asyncio.gather(*flood)) == {None}
    assert len(sent) <= 3


async def test_beyond_what_can_wait_callers_are_told_at_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "MAX_WAITING", 5)
    gate = Gate(monkeypatch, api_keys, "find")
    first = asyncio.ensure_future(server.good(new_secret().text))
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    waiting = [asyncio.ensure_future(server.good(new_secret().text)) for _ in range(6)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(Unavailable) as refused:
        await done.pop()
    assert refused.value.reason is Reason.OVERLOADED
    gate.open()
    assert await first is None
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert answers.count(None) == 5


async def test_who_gives_up_waiting_takes_nobody_along(
    server: Server, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    gate = Gate(monkeypatch, api_keys, "find")
    first, second = [asyncio.ensure_future(server.good(issued[0])) for _ in range(2)]
    await asyncio.wait_for(gate.reached.wait(), SECONDS)
    first.cancel()
    gate.open()
    assert await second is not None


async def test_what_is_remembered_is_bounded_and_a_flood_does_not_push_out_what_is_good(
    parts: Parts, start, acme: Tenant
) -> None:
    server = await start(max_known=2, max_unknown=3)
    secrets = [(await parts.key(acme)).secret for _ in range(3)]
    for secret in secrets[:2]:
        await server.good(secret)
    for _ in range(10):
        await server.good(new_secret().text)
    async with counted_statements() as sent:
        for secret in secrets[:2]:
            assert await server.good(secret) is not None
    assert sent == []
    await server.good(secrets[2])
    async with counted_statements() as sent:
        for secret in secrets[1:]:
            assert await server.good(secret) is not None
        assert sent == []
        assert await server.good(secrets[0]) is not None
    assert len(sent) == 1
    assert len(server.keys._unknown) == 3
    assert len(server.keys._known) == len(server.keys._hashes) == 2


# -- outages ----------------------------------------------------------------------------------------------


@pytest.fixture
async def away(parts: Parts) -> AsyncIterator[Database]:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing", 1, (SYSTEM_ROLE,))
    await nowhere.open()
    yield nowhere
    await nowhere.close()


async def test_without_postgresql_known_keys_stay_good_for_the_time_that_is_set_and_no_other_gets_in(
    parts: Parts, server: Server, acme: Tenant, away: Database, clock: Clock
) -> None:
    known, expiring, unknown = [
        (await parts.key(acme, until=until)).secret for until in (None, datetime.now(UTC) + timedelta(seconds=30), None)
    ]
    assert (await server.good(known), await server.good(expiring)) != (None, None)
    server.keys._database = server.feed._database = away
    clock.ahead = 55
    assert await server.good(known) is not None
    assert await server.refusal(expiring) is Reason.KEY_EXPIRED
    with pytest.raises(Unavailable) as refused:
        await server.good(unknown)
    assert refused.value.reason is Reason.POSTGRES_UNAVAILABLE
    clock.ahead = 61
    for secret in (known, unknown):
        with pytest.raises(Unavailable) as refused:
            await server.good(secret)
        assert refused.value.reason is Reason.POSTGRES_UNAVAILABLE
    server.keys._database = server.feed._database = parts.database
    await server.feed.poll()
    for secret in (known, unknown):
        assert await server.good(secret) is not None


# -- last use ---------------------------------------------------------------------------------------------


async def last_used(parts: Parts, key: ApiKey) -> datetime | None:
    return (await parts.keys.get_api_key(parts.system, key.tenant_id, key.id)).record.last_used_time


async def test_the_last_use_is_written_by_and_by_and_not_for_each_call(
    parts: Parts, server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch, issued: tuple[str, ApiKey]
) -> None:
    monkeypatch.setattr(known_keys, "NOTED_EVERY", timedelta(seconds=50))
    secret, key = issued
    await server.good(secret)
    async with counted_statements() as sent:
        for _ in range(100):
            await server.good(secret)
    assert (sent, await last_used(parts, key)) == ([], None)
    await server.keys.write_uses()
    first = await last_used(parts, key)
    assert abs((datetime.now(UTC) - first).total_seconds()) < 60
    await server.good(secret)
    async with counted_statements() as sent:
        await server.keys.write_uses()
    assert sent == [], "once in that time"
    clock.ahead = 51
    await server.good(secret)
    await server.keys.write_uses()
    assert (await last_used(parts, key)) - first > timedelta(seconds=49)


async def test_a_use_changes_no_etag_and_does_not_wait_for_who_changes_the_key(
    parts: Parts, server: Server, acme: Tenant
) -> None:
    made = await parts.key(acme)
    key = made.changed.record
    await server.good(made.secret)
    async with parts.database.begin(known_keys._SCOPE) as tx:
        await api_keys.lock(tx, key.tenant_id, key.id)
        await asyncio.wait_for(server.keys.write_uses(), SECONDS)
    after = (await parts.keys.get_api_key(parts.system, key.tenant_id, key.id)).record
    assert after == key


async def test_uses_that_cannot_be_written_are_written_later(
    parts: Parts, server: Server, away: Database, issued: tuple[str, ApiKey]
) -> None:
    secret, key = issued
    await server.good(secret)
    server.keys._database = away
    await server.keys.write_uses()
    server.keys._database = parts.database
    await server.keys.write_uses()

    async def written() -> bool:
        return await last_used(parts, key) is not None

    await eventually(written)
