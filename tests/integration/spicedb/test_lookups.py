"""Lookups at a revision: what a cursor goes on from is that revision or an error, never another answer."""

from __future__ import annotations

import pytest

from pemba.errors import PreconditionFailed, Reason
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb import lookups
from pemba.spicedb.client import Decision, FullyConsistent, SpiceDB
from pemba.spicedb.lookups import ExactlyAt

# Nobody else's: the store is shared by all tests, and a lookup sees all of it.
CAROL = SubjectRef("user", "carol-of-lookups")
WORKSPACE = ObjectRef("workspace", "ten_lookups/child")
OF_NO_STORE = "GhUKEzE3MDAwMDAwMDAwMDAwMDAwMDA="


def touch(*tuples: str) -> list[TupleOperation]:
    return [TupleOperation(Operation.TOUCH, Tuple.parse(text)) for text in tuples]


async def resources(client: SpiceDB, at) -> list[lookups.Found]:
    return [found async for found in lookups.resources(client, "workspace", "view", CAROL, {}, at, 10)]


async def subjects(client: SpiceDB, at) -> list[lookups.Found]:
    return [found async for found in lookups.subjects(client, WORKSPACE, "view", ("user", ""), {}, at, 10)]


@pytest.fixture
async def carol(client: SpiceDB) -> SpiceDB:
    operations = touch(
        "workspace:ten_lookups/child#parent@workspace:ten_lookups/root",
        "workspace:ten_lookups/root#viewer@user:carol-of-lookups",
        "workspace:ten_lookups/child#viewer@user:carol-of-lookups",
        "workspace:ten_lookups/child#admin@user:carol-of-lookups",
        "workspace:ten_lookups/child#viewer@user:dave",
    )
    await client.write(operations, metadata={}, timeout=10)
    return client


async def test_what_is_reached_by_several_paths_is_found_once(carol) -> None:
    found = await resources(carol, FullyConsistent())
    assert sorted(item.id for item in found) == ["ten_lookups/child", "ten_lookups/root"]
    assert {item.decision for item in found} == {Decision.ALLOWED}
    assert sorted(item.id for item in await subjects(carol, FullyConsistent())) == ["carol-of-lookups", "dave"]


async def test_at_a_named_revision_a_later_change_does_not_show(carol) -> None:
    before = await subjects(carol, FullyConsistent())
    await carol.write(touch("workspace:ten_lookups/child#viewer@user:erin"), metadata={}, timeout=10)
    assert await subjects(carol, ExactlyAt(before[0].looked_up_at)) == before
    assert len(await subjects(carol, FullyConsistent())) == 3


@pytest.mark.parametrize("look", [resources, subjects])
async def test_a_revision_that_is_gone_is_an_expired_cursor(carol, look) -> None:
    with pytest.raises(PreconditionFailed) as expired:
        await look(carol, ExactlyAt(OF_NO_STORE))
    assert expired.value.reason is Reason.CURSOR_EXPIRED


@pytest.mark.parametrize("look", [resources, subjects])
async def test_a_revision_of_another_store_is_an_expired_cursor(carol, own_spicedb, look) -> None:
    found = await look(carol, FullyConsistent())
    server = own_spicedb()
    other = SpiceDB.connect(server.endpoint, server.key)
    try:
        with pytest.raises(PreconditionFailed) as expired:
            await look(other, ExactlyAt(found[0].looked_up_at))
    finally:
        await other.close()
    assert expired.value.reason is Reason.CURSOR_EXPIRED
