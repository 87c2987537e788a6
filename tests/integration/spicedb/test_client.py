"""Questions and writes against a real SpiceDB."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import pytest

from pemba.errors import Rejected, Timeout, Unavailable
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb import lookups
from pemba.spicedb.client import AtLeast, CheckQuestion, Decision, FullyConsistent, MinimizeLatency, SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure

ALICE = SubjectRef("user", "alice")


@pytest.fixture
def tenant() -> str:
    return f"ten_{secrets.token_hex(8)}"


async def write(client: SpiceDB, *texts: str) -> str:
    """`+tuple` and `-tuple`."""
    kinds = {"+": Operation.TOUCH, "-": Operation.DELETE}
    operations = [TupleOperation(kinds[text[0]], Tuple.parse(text[1:])) for text in texts]
    return await client.write(operations, metadata={"request_id": "test"}, timeout=5)


def ask(tenant: str, permission: str = "view", user: str = "alice", workspace: str = "w") -> CheckQuestion:
    return CheckQuestion(ObjectRef("workspace", f"{tenant}/{workspace}"), permission, SubjectRef("user", user))


async def test_a_check_at_a_writes_token_sees_the_write(client: SpiceDB, tenant: str) -> None:
    for _ in range(5):
        token = await write(client, f"+workspace:{tenant}/w#owner@user:alice")
        assert (await client.check(ask(tenant), AtLeast(token), 5)).decision is Decision.ALLOWED
        token = await write(client, f"-workspace:{tenant}/w#owner@user:alice")
        assert (await client.check(ask(tenant), AtLeast(token), 5)).decision is Decision.DENIED
        assert (await client.check(ask(tenant), FullyConsistent(), 5)).decision is Decision.DENIED


async def test_a_check_of_minimal_latency_answers_once_the_schema_is_older_than_the_revision_it_picks(
    client: SpiceDB, tenant: str
) -> None:
    """SpiceDB picks one of the last five seconds: soon after the first apply it knows no definition there."""
    async with asyncio.timeout(20):
        while True:
            with suppress(Unavailable):
                found = await client.check(ask(tenant), MinimizeLatency(), 5)
                assert found.decision is Decision.DENIED
                return
            await asyncio.sleep(0.2)


async def test_a_bulk_check_answers_in_order_repeats_included(client: SpiceDB, tenant: str) -> None:
    token = await write(client, f"+workspace:{tenant}/w#viewer@user:alice", f"+workspace:{tenant}/w#owner@user:olga")
    questions = [
        ask(tenant, permission, user)
        for user in ("alice", "olga", "nobody", "alice")
        for permission in ("own", "view", "view")
    ]
    found = await client.check_bulk(questions, AtLeast(token), 5)
    no, yes = Decision.DENIED, Decision.ALLOWED
    assert [r.decision for r in found.results] == [no, yes, yes, yes, yes, yes, no, no, no, no, yes, yes]


async def test_a_bulk_checks_bad_item_is_that_items_error(client: SpiceDB, tenant: str) -> None:
    token = await write(client, f"+workspace:{tenant}/w#viewer@user:alice")
    found = await client.check_bulk([ask(tenant), ask(tenant, "fly")], AtLeast(token), 5)
    assert found.results[0].decision is Decision.ALLOWED
    assert isinstance(found.results[1], Unavailable)
    with pytest.raises(ValueError, match="1000"):
        await client.check_bulk([ask(tenant)] * 1001, AtLeast(token), 5)


async def test_lookups_and_reads_agree_with_what_was_written(client: SpiceDB, tenant: str) -> None:
    texts = [f"+workspace:{tenant}/w{n}#viewer@user:alice" for n in range(1001)]
    for i in range(0, len(texts), 500):
        await write(client, *texts[i : i + 500])
    fresh = FullyConsistent()
    found = [each.id async for each in lookups.resources(client, "workspace", "view", ALICE, {}, fresh, 20)]
    assert {id_ for id_ in found if id_.startswith(tenant)} == {f"{tenant}/w{n}" for n in range(1001)}
    on_first = ObjectRef("workspace", f"{tenant}/w0")
    who = lookups.subjects(client, on_first, "view", ("user", ""), {}, fresh, 5)
    assert [each.id async for each in who] == ["alice"]
    stored = [f"+{t}" async for t in client.read_tuples("workspace", fresh, 20, id_prefix=f"{tenant}/")]
    assert sorted(stored) == sorted(texts)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("+workspace:{}/w#fly@user:alice", "UNKNOWN_RELATION_OR_PERMISSION"),
        ("+document:{}/w#owner@user:alice", "UNKNOWN_DEFINITION"),
        ("+workspace:{}/w#owner@robot:alice", "UNKNOWN_DEFINITION"),
        ("+workspace:{}/w#owner@tenant:alice", "INVALID_SUBJECT_TYPE"),
        ("+workspace:{}/w#view@user:alice", "CANNOT_UPDATE_PERMISSION"),
    ],
)
async def test_what_is_refused_for_its_own_sake_is_classed_by_its_reason_and_nothing_is_written(
    client: SpiceDB, tenant: str, text: str, said: str
) -> None:
    with pytest.raises(WriteFailed, match=said) as failed:
        await write(client, f"+workspace:{tenant}/w#owner@user:alice", text.format(tenant))
    assert failed.value.kind is WriteFailure.OPERATION
    assert not [t async for t in client.read_tuples("workspace", FullyConsistent(), 5, id_prefix=f"{tenant}/")]


async def test_limits_and_keys_are_settings_and_a_repeated_tuple_is_an_operations_fault(
    client: SpiceDB, spicedb, tenant: str
) -> None:
    async def kind(*texts: str, by: SpiceDB = client) -> WriteFailure:
        with pytest.raises(WriteFailed) as failed:
            await write(by, *texts)
        return failed.value.kind

    one = f"+workspace:{tenant}/w#owner@user:alice"
    assert await kind(*(f"+workspace:{tenant}/w{n}#owner@user:alice" for n in range(1001))) is WriteFailure.SETTING
    assert await kind(one, one) is WriteFailure.OPERATION
    stranger = SpiceDB.connect(spicedb.endpoint, "not the key")
    assert await kind(one, by=stranger) is WriteFailure.SETTING
    with pytest.raises(Rejected):
        await stranger.check(ask(tenant), FullyConsistent(), 5)
    await stranger.close()


async def test_nobody_there_is_unavailable_and_uncertain_and_a_deadline_holds(client: SpiceDB, tenant: str) -> None:
    nobody = SpiceDB.connect("127.0.0.1:1", "k")
    with pytest.raises(Unavailable):
        await nobody.check(ask(tenant), FullyConsistent(), 2)
    with pytest.raises(WriteFailed) as failed:
        await write(nobody, f"+workspace:{tenant}/w#owner@user:alice")
    assert failed.value.kind is WriteFailure.UNCERTAIN
    await nobody.close()
    with pytest.raises((Timeout, Unavailable)):  # the one where we gave up first, the other where SpiceDB did
        await client.check(ask(tenant), FullyConsistent(), 0.0001)
