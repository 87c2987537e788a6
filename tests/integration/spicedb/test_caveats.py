"""What a caveat, a wildcard, a precondition and a page are in a real SpiceDB, whose schema an application extended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from authzed.api.v1 import (
    ContextualizedCaveat,
    ObjectReference,
    Relationship,
    RelationshipUpdate,
    SubjectReference,
    WriteRelationshipsRequest,
)
from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

from pemba.errors import PreconditionFailed, Reason
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb import lookups, schema
from pemba.spicedb.client import CheckQuestion, CheckResult, Decision, FullyConsistent, SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.spicedb.schema_gate import SchemaGate

NOW = FullyConsistent()
ALICE = SubjectRef("user", "alice")
EXTENDED = (
    schema.schema_text()
    + """
caveat on_day(day string) {
	day == "monday" || day == "mon"
}

definition document {
	relation owner: user
	relation reader: user with on_day
	relation public: user:*
	permission view = owner + reader
	permission read = owner + public
}
"""
)


@pytest.fixture
async def extended(bare_client: SpiceDB) -> SpiceDB:
    await schema.write(bare_client, EXTENDED)
    return bare_client


async def write(client: SpiceDB, *texts: str, must_match: tuple[str, ...] = ()) -> None:
    await client.write(
        [TupleOperation(Operation.TOUCH, Tuple.parse(text)) for text in texts],
        metadata={},
        timeout=5,
        must_match=[Tuple.parse(text) for text in must_match],
    )


async def write_on_day(client: SpiceDB, document: str, user: str) -> None:
    """With a caveat, which `SpiceDB.write` does not take."""
    relationship = Relationship(
        resource=ObjectReference(object_type="document", object_id=document),
        relation="reader",
        subject=SubjectReference(object=ObjectReference(object_type="user", object_id=user)),
        optional_caveat=ContextualizedCaveat(caveat_name="on_day"),
    )
    update = RelationshipUpdate(operation=RelationshipUpdate.OPERATION_TOUCH, relationship=relationship)
    await PermissionsServiceStub(client.channel).WriteRelationships(
        WriteRelationshipsRequest(updates=[update]), metadata=client.metadata, timeout=5
    )


async def test_a_caveat_without_its_context_is_conditional_and_never_listed_as_allowed(extended: SpiceDB) -> None:
    await write(extended, "document:d1#owner@user:alice", "document:d2#owner@user:bob")
    await write_on_day(extended, "d2", "alice")

    async def ask(context: Mapping[str, object]) -> CheckResult:
        question = CheckQuestion(ObjectRef("document", "d2"), "view", ALICE, context)
        single = await extended.check(question, NOW, 5)
        bulk = (await extended.check_bulk([question], NOW, 5)).results
        assert [(r.decision, r.missing_context) for r in bulk] == [(single.decision, single.missing_context)]
        return single

    conditional = await ask({})
    assert (conditional.decision, conditional.missing_context) == (Decision.CONDITIONAL, ("day",))
    assert (await ask({"day": "monday"})).decision is Decision.ALLOWED
    assert (await ask({"day": "tuesday", "other": [1, {"x": None}]})).decision is Decision.DENIED
    assert await ids(lookups.resources(extended, "document", "view", ALICE, {}, NOW, 5)) == ["d1"]
    on_second = ObjectRef("document", "d2")
    assert await ids(lookups.subjects(extended, on_second, "view", ("user", ""), {}, NOW, 5)) == ["bob"]


async def ids(found: AsyncIterator[lookups.Found]) -> list[str]:
    """Those that are ALLOWED whatever the context."""
    return [item.id async for item in found if item.decision is Decision.ALLOWED]


async def test_a_wildcard_allows_everybody_and_lists_only_those_who_are_named(extended: SpiceDB) -> None:
    await write(extended, "document:d1#public@user:*", "document:d1#owner@user:bob")
    question = CheckQuestion(ObjectRef("document", "d1"), "read", ALICE)
    assert (await extended.check(question, NOW, 5)).decision is Decision.ALLOWED
    found = lookups.subjects(extended, ObjectRef("document", "d1"), "read", ("user", ""), {}, NOW, 5)
    assert await ids(found) == ["bob"]


async def test_a_write_lands_only_while_what_it_must_match_is_stored(extended: SpiceDB) -> None:
    await write(extended, "fence:pemba#shard_00@mark:1/1", "group:g#member@group:h#member")
    for must_match in ("fence:pemba#shard_00@mark:1/1", "group:g#member@group:h#member"):
        await write(extended, "document:d1#owner@user:alice", must_match=(must_match,))
    for must_match in ("fence:pemba#shard_00@mark:1/2", "fence:pemba#shard_01@mark:1/1", "group:g#member@group:h"):
        with pytest.raises(WriteFailed) as failed:
            await write(extended, "document:d2#owner@user:alice", must_match=(must_match,))
        assert failed.value.kind is WriteFailure.PRECONDITION
    assert [str(t) async for t in extended.read_tuples("document", NOW, 5)] == ["document:d1#owner@user:alice"]


async def test_a_precondition_that_does_not_hold_is_told_from_an_operation_that_is_refused(extended: SpiceDB) -> None:
    with pytest.raises(WriteFailed) as failed:
        await write(extended, "document:d1#owner@user:alice", must_match=("fence:pemba#shard_00@mark:9/9",))
    assert failed.value.kind is WriteFailure.PRECONDITION
    with pytest.raises(WriteFailed) as failed:  # operations are looked at first
        await write(extended, "document:d1#nobody@user:alice", must_match=("fence:pemba#shard_00@mark:9/9",))
    assert failed.value.kind is WriteFailure.OPERATION


async def test_all_pages_are_of_the_revision_at_which_reading_began(extended: SpiceDB) -> None:
    for part in range(3):
        await write(extended, *(f"document:d{part}_{n}#owner@user:alice" for n in range(700)))
    seen = 0
    async for _ in extended.read_tuples("document", NOW, 20):
        seen += 1
        if seen == 1:
            await write(extended, "document:zzz#owner@user:alice", "document:aaa#owner@user:alice")
    assert seen == 2100
    assert len([t async for t in extended.read_tuples("document", NOW, 20)]) == 2102


async def test_one_who_stops_reading_early_leaves_the_client_usable(extended: SpiceDB) -> None:
    await write(extended, *(f"document:d{n}#owner@user:alice" for n in range(500)))
    tuples = extended.read_tuples("document", NOW, 20)
    assert str(await anext(tuples)).startswith("document:")
    await tuples.aclose()
    assert len([t async for t in extended.read_tuples("document", NOW, 20)]) == 500


async def test_a_graph_too_deep_is_an_error_of_its_own(extended: SpiceDB) -> None:
    await write(extended, *(f"group:g{n}#member@group:g{n + 1}#member" for n in range(60)))
    question = CheckQuestion(ObjectRef("group", "g0"), "member", ALICE)
    with pytest.raises(PreconditionFailed) as deep:
        await extended.check(question, NOW, 5)
    assert deep.value.reason is Reason.TOO_DEEP
    bulk = await extended.check_bulk([question], NOW, 5)
    assert [getattr(result, "reason", None) for result in bulk.results] == [Reason.TOO_DEEP]


async def test_more_than_this_build_needs_is_fine_and_a_changed_expression_too(extended: SpiceDB) -> None:
    assert await schema.missing(extended) == []
    newer = EXTENDED.replace("permission edit = administer + member_line", "permission edit = administer + member")
    assert newer != EXTENDED
    await schema.write(extended, newer)
    assert [str(change) for change in await schema.changes(extended, EXTENDED)] == [
        "permission expr changed: workspace#edit"
    ]
    assert await schema.missing(extended) == []


async def test_each_kind_of_thing_that_is_missing_is_named(extended: SpiceDB) -> None:
    own = schema.schema_text()
    older = (
        own.replace("	relation manager: user\n", "")
        .replace(
            "member: user | api_key | group#member\n}\n\ndefinition tenant", "member: user\n}\n\ndefinition tenant"
        )
        .replace("	permission view = member + administer\n", "")
        .replace("	relation shard_15: mark\n", "")
    )
    await schema.write(extended, older)
    assert {str(change) for change in await schema.missing(extended)} == {
        "relation added: group#manager",
        "relation subject type added: group#member: api_key",
        "relation subject type added: group#member: group#member",
        "permission added: tenant#view",
        "relation added: fence#shard_15",
    }
    gate = SchemaGate(extended)
    assert not await gate.check_once()
    await schema.write(extended, own)
    assert await gate.check_once()


async def test_a_text_that_is_no_schema_is_refused_with_the_place(extended: SpiceDB) -> None:
    with pytest.raises(PreconditionFailed, match="line 1, column 1") as refused:
        await schema.changes(extended, "definitoin user {}")
    assert refused.value.reason is Reason.SCHEMA_MISMATCH
