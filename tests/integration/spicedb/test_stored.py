"""What is stored, told apart from what merely follows from it."""

from __future__ import annotations

import secrets

import pytest

from pemba.errors import Reason, Unavailable
from pemba.model import Operation, Tuple, TupleOperation
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.stored import StoredTuples


@pytest.fixture
def tenant() -> str:
    return f"ten_{secrets.token_hex(8)}"


async def put_in(client: SpiceDB, *texts: str) -> list[Tuple]:
    tuples = [Tuple.parse(text) for text in texts]
    await client.write([TupleOperation(Operation.TOUCH, t) for t in tuples], metadata={}, timeout=5)
    return tuples


async def test_a_tuple_is_stored_or_not_whoever_else_has_the_relation(client: SpiceDB, tenant: str) -> None:
    there = await put_in(
        client,
        f"group:{tenant}/g#member@user:alice",
        f"workspace:{tenant}/w#admin@group:{tenant}/g#member",
        f"workspace:{tenant}/w#parent@workspace:{tenant}/root",
        f"workspace:{tenant}/w#shared_admin@workspace:{tenant}/v#roster",
    )
    follows = [
        f"workspace:{tenant}/w#admin@user:alice",  # by the group
        f"workspace:{tenant}/w#admin@user:bob",
        f"workspace:{tenant}/root#parent@workspace:{tenant}/w",
        f"workspace:{tenant}/w2#parent@workspace:{tenant}/root",
    ]
    assert await StoredTuples(client).holding([*there, *map(Tuple.parse, follows)]) == set(there)
    assert await StoredTuples(client).holding([]) == set()


async def test_thousands_are_asked_about_at_once(client: SpiceDB, tenant: str) -> None:
    [there] = await put_in(client, f"workspace:{tenant}/w#viewer@user:user-2499")
    asked = [Tuple.parse(f"workspace:{tenant}/w#viewer@user:user-{n}") for n in range(2500)]
    assert await StoredTuples(client).holding(asked) == {there}


async def test_a_relation_that_the_schema_lacks_is_a_failure_and_no_absence(client: SpiceDB, tenant: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await StoredTuples(client).holding([Tuple.parse(f"workspace:{tenant}/w#astronaut@user:alice")])
    assert caught.value.reason is Reason.SCHEMA_MISMATCH


async def test_a_scan_gives_the_tuples_of_a_prefix(client: SpiceDB, tenant: str) -> None:
    there = await put_in(client, f"workspace:{tenant}/w#viewer@user:alice", f"workspace:{tenant}2/w#viewer@user:alice")
    found = [t async for t in StoredTuples(client).scan("workspace", f"{tenant}/")]
    assert found == there[:1]
