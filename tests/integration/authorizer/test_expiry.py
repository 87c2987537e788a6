"""Past a tenant's next expiry nothing that is kept is given: by the database's clock, until the row that says so is in
force."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from pemba.authorizer import Decision, feed
from pemba.model import Role, Share, Tenant, Workspace
from pemba.spicedb.client import AtLeast, FullyConsistent
from pemba.storage import delivery
from tests.integration.authorizer.conftest import Asking, Followed
from tests.truth import eventually

ALLOWED, DENIED = Decision.ALLOWED, Decision.DENIED
SECONDS = 2.0
HOUR = 3600.0


class Lab:
    """A tenant whose `lab` is shared with `guests`, of which carol is a member, for a while."""

    def __init__(self, asking: Asking, tenant: Tenant, lab: Workspace, guests: Workspace, share: Share) -> None:
        self.asking, self.tenant, self.lab, self.guests, self.share = asking, tenant, lab, guests, share

    @classmethod
    async def shared(cls, asking: Asking, seconds: float = SECONDS) -> Lab:
        tenant, root = await asking.parts.tenant()
        lab, guests = [await asking.parts.workspace(root, slug) for slug in ("lab", "guests")]
        await asking.parts.role(guests, "carol", Role.VIEWER)
        share = (await asking.parts.share(lab, guests, seconds=seconds)).record
        await asking.in_force(tenant)
        return cls(asking, tenant, lab, guests, share)

    async def is_due(self) -> bool:
        """By the database's clock."""
        [row] = await self.asking.parts.sql("SELECT now() > $1 AS due", self.share.expire_time)
        await self.asking.feed.poll()
        return row["due"]

    async def may_view(self) -> str:
        return await self.asking.may_view(self.lab, "carol")

    async def asks(self) -> int:
        return await self.asking.asks(self.lab, "carol")

    async def swept(self) -> None:
        assert await self.asking.parts.expiry.run_once() == 1


async def test_past_the_next_expiry_spicedb_is_asked_fully_consistent_and_nothing_is_kept(asking: Asking) -> None:
    lab = await Lab.shared(asking)
    assert await lab.may_view() == ALLOWED
    assert await lab.asks() == 0, "kept as long as it is in time"
    assert [type(freshness) for freshness in asking.spicedb.asked] == [AtLeast]
    await eventually(lab.is_due)
    assert [await lab.asks() for _ in range(3)] == [1, 1, 1]
    assert {type(freshness) for freshness in asking.spicedb.asked[1:]} == {FullyConsistent}
    await eventually(lambda: is_denied(lab))
    await lab.swept()
    assert await lab.asks() == 1, "not in force yet"
    await asking.in_force(lab.tenant)
    assert [await lab.asks(), await lab.asks()] == [1, 0]
    assert await lab.may_view() == DENIED


async def is_denied(lab: Lab) -> bool:
    return await lab.may_view() == DENIED


async def test_all_that_is_asked_together_is_asked_anew_as_well(asking: Asking) -> None:
    lab = await Lab.shared(asking)
    root = replace(lab.lab, id=lab.lab.parent_id)
    for _ in range(2):
        assert [await asking.asks(place, "alice") for place in (lab.lab, root)] in ([1, 1], [0, 0])
    await eventually(lab.is_due)
    assert [await asking.asks(place, "alice") for place in (lab.lab, root)] == [1, 1]


async def test_without_what_rows_say_of_the_next_expiry_a_kept_answer_outlives_the_share(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guard is for."""
    read = delivery.prefixes

    async def without(*given):
        return {t: [replace(row, next_expiry=None) for row in rows] for t, rows in (await read(*given)).items()}

    monkeypatch.setattr(delivery, "prefixes", without)
    lab = await Lab.shared(asking)
    assert await lab.may_view() == ALLOWED
    await eventually(lab.is_due)
    assert (await lab.asks(), await lab.may_view()) == (0, ALLOWED)


async def test_a_share_that_expires_later_leaves_what_is_kept_alone(asking: Asking) -> None:
    lab = await Lab.shared(asking, HOUR)
    assert [await lab.asks() for _ in range(3)] == [1, 0, 0]


async def test_while_the_database_is_silent_the_seconds_since_its_last_answer_count(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that runs on in a suspended machine."""
    lab = await Lab.shared(asking, 30)
    assert [await lab.asks() for _ in range(2)] == [1, 0]
    boot_seconds = feed.boot_seconds
    monkeypatch.setattr(feed, "boot_seconds", lambda: boot_seconds() + 25)
    assert await lab.asks() == 0
    monkeypatch.setattr(feed, "boot_seconds", lambda: boot_seconds() + 31)
    assert [await lab.asks() for _ in range(2)] == [1, 1]


async def test_a_tenant_that_is_loaded_past_its_expiry_is_asked_about_fully_consistent(followed: Followed) -> None:
    tenant, root = await followed.parts.tenant()
    places = [await followed.parts.workspace(root, f"place-{n}") for n in range(2)]
    share = (await followed.parts.share(*places, seconds=SECONDS)).record
    await followed.record(delivery.Delivered(tenant.id, 4, "z", next_expiry=share.expire_time), 0)
    await followed.feed.poll()
    assert (await followed.position(tenant)).zedtoken == "z"

    async def passed() -> bool:
        await followed.feed.poll()
        return (await followed.position(tenant)).serial == 0

    await eventually(passed)
    another = feed.Feed(followed.parts.database, 60)
    await another.poll()
    position = (await another.snapshot([tenant.id], [])).positions[tenant.id]
    assert (position.delivered_seq, position.zedtoken, position.serial) == (4, None, 0)


# -- clocks -----------------------------------------------------------------------------------------------


@pytest.fixture(params=[-1, 1])
async def hours_off(request: pytest.FixtureRequest, database_url: str) -> int:
    """The clock of Pemba's database is so many hours fast; this host's, and that of SpiceDB's database, are not."""
    connection = await asyncpg.connect(database_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(
        f"""
        CREATE SCHEMA off;
        GRANT USAGE ON SCHEMA off TO PUBLIC;
        CREATE FUNCTION off.now() RETURNS timestamptz LANGUAGE sql STABLE
            AS 'SELECT pg_catalog.now() + interval ''{request.param} hours''';
        ALTER DATABASE {name} SET search_path = off, pg_catalog, public;
        """
    )
    await connection.close()
    return request.param


async def test_a_server_whose_clock_is_an_hour_off_serves_up_to_the_databases_moment_and_not_past_it(
    hours_off: int, asking: Asking
) -> None:
    lab = await Lab.shared(asking)
    assert abs((lab.share.expire_time - datetime.now(UTC)).total_seconds() - hours_off * HOUR) < 60
    assert [await lab.asks() for _ in range(2)] == [1, 0]
    await eventually(lab.is_due)
    assert [await lab.asks() for _ in range(2)] == [1, 1]
    await lab.swept()
    await asking.in_force(lab.tenant)
    assert [await lab.may_view(), await lab.may_view()] == [DENIED] * 2
