"""A kept decision is given only where SpiceDB would say the same: each part of its key, and each rule beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from pemba.authorizer import Authorizer, Consistency, Decision, Question, decisions
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.ground import Position
from pemba.errors import Reason, Timeout
from pemba.model import (
    ObjectRef,
    Operation,
    Role,
    SubjectRef,
    Tenant,
    TenantId,
    TenantStatus,
    Tuple,
    TupleOperation,
    Workspace,
    spicedb_id,
)
from pemba.spicedb import schema, schema_apply
from pemba.spicedb.client import AtLeast, CheckResult, FullyConsistent, SpiceDB
from pemba.storage.schema_versions import SchemaVersions
from tests.integration.authorizer.conftest import Asking, CountingSpiceDB, Followed
from tests.integration.conftest import ref
from tests.truth import eventually

ALLOWED, DENIED, CONDITIONAL = Decision.ALLOWED, Decision.DENIED, Decision.CONDITIONAL

# -- how long ---------------------------------------------------------------------------------------------


async def test_a_decision_is_kept_until_the_position_moves(asking: Asking) -> None:
    tenant, root = await asking.tenant()
    _, other_root = await asking.tenant()
    await asking.may_view(other_root, "bob")
    assert [await asking.asks(root, "bob") for _ in range(3)] == [1, 0, 0]
    await asking.parts.role(root, "bob", Role.VIEWER)
    assert await asking.may_view(root, "bob") == DENIED, "not in force yet"
    await asking.in_force(tenant)
    assert await asking.may_view(root, "bob") == ALLOWED
    assert await asking.asks(root, "bob") == 0
    await asking.parts.remove(root, "bob")
    await asking.in_force(tenant)
    assert await asking.may_view(root, "bob") == DENIED
    assert await asking.asks(other_root, "bob") == 0, "another tenant's stay"


async def test_an_answer_that_comes_after_the_position_moved_is_not_kept(asking: Asking) -> None:
    tenant, root = await asking.tenant()
    asking.spicedb.gate.clear()
    late = asyncio.create_task(asking.may_view(root, "bob"))
    await eventually(lambda: was_asked(asking, 1))
    await asking.parts.role(root, "bob", Role.VIEWER)
    await asking.in_force(tenant)
    known = asyncio.create_task(asking.may_view(root, "carol"))
    await eventually(lambda: was_asked(asking, 2))
    asking.spicedb.gate.set()
    assert (await late, await known) == (DENIED, DENIED)
    assert await asking.may_view(root, "bob") == ALLOWED


async def test_a_kept_decision_is_no_older_than_its_greatest_age(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock that runs on while the machine is suspended."""
    _, root = await asking.tenant()
    asking.use(Decisions(1000, 60))
    boot_seconds = decisions.boot_seconds
    assert await asking.asks(root, "bob") == 1
    monkeypatch.setattr(decisions, "boot_seconds", lambda: boot_seconds() + 50)
    assert await asking.asks(root, "bob") == 0
    monkeypatch.setattr(decisions, "boot_seconds", lambda: boot_seconds() + 61)
    assert [await asking.asks(root, "bob") for _ in range(2)] == [1, 0]


async def test_beyond_the_limit_the_tenant_asked_about_longest_ago_goes_first(asking: Asking) -> None:
    asking.use(Decisions(4, 60))
    one, two, three = [(await asking.tenant())[1] for _ in range(3)]
    for root in (one, two):
        assert [await asking.asks(root, user) for user in ("bob", "carol")] == [1, 1]
    assert await asking.asks(one, "bob") == 0
    assert await asking.asks(three, "bob") == 1
    assert [await asking.asks(one, user) for user in ("bob", "carol")] == [0, 0]
    assert await asking.asks(two, "bob") == 1


async def test_one_tenant_alone_beyond_the_limit_starts_over(asking: Asking) -> None:
    asking.use(Decisions(2, 60))
    _, root = await asking.tenant()
    assert [await asking.asks(root, user) for user in ("bob", "carol", "dave")] == [1, 1, 1]
    assert [await asking.asks(root, user) for user in ("dave", "bob", "dave")] == [0, 1, 0]
    assert asking.decisions._count == 2


async def test_with_no_limit_to_reach_nothing_is_kept(asking: Asking) -> None:
    asking.use(Decisions(0, 60))
    _, root = await asking.tenant()
    assert [await asking.asks(root, "bob") for _ in range(2)] == [1, 1]


async def test_a_question_at_an_earlier_position_leaves_what_is_kept() -> None:
    """Snapshots come to be asked in any order."""
    kept, tenant_id = Decisions(5, 60), TenantId("ten_1")
    earlier, later = (Position(TenantStatus.ACTIVE, seq, None, serial=seq) for seq in (1, 2))
    kept.keep(tenant_id, kept.at(tenant_id, later), "question", ALLOWED)
    assert kept.known(kept.at(tenant_id, earlier), "question") is None
    assert kept.known(kept.at(tenant_id, later), "question") is ALLOWED


async def test_what_is_counted_is_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions move, tenants come and go, late answers arrive: the count neither leaks nor drifts."""
    monkeypatch.setattr(decisions, "MAX_TENANTS", 3)
    kept = Decisions(5, 60)
    held = []
    for serial in range(1, 60):
        tenant_id = TenantId(f"ten_{serial * 7 % 5}")
        decided = kept.at(tenant_id, Position(TenantStatus.ACTIVE, 1, None, serial - serial % 3))
        held.append((tenant_id, decided))
        for at in (held[-1], held[serial * 5 % len(held)]):
            kept.keep(*at, f"{serial % 4}", ALLOWED if serial % 2 else DENIED)
        assert kept._count == sum(len(decided.allowed) for decided in kept._tenants.values()) <= 5
        assert sum(len(decided.allowed) for _, decided in held if decided not in kept._tenants.values()) == 0
        assert len(kept._tenants) <= 3, "tenants of whom nothing is kept are bounded as well"


# -- the key ----------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Two questions that differ in one part; the answer to the first is ALLOWED, and DENIED to the second."""

    first: Question
    second: Question


def pairs(tenant: Tenant, root: Workspace, below: Workspace, team: Workspace) -> dict[str, Pair]:
    on_root, on_tenant = ref(root), ref(tenant)
    alice, bob, viewer = SubjectRef("user", "alice"), SubjectRef("user", "bob"), SubjectRef("user", "viewer")
    roster, others = (SubjectRef("workspace", team.id, relation) for relation in ("roster", "view"))
    return {
        "resource type": Pair(
            Question(on_tenant, "view", alice), Question(ObjectRef("workspace", tenant.id), "view", alice)
        ),
        "resource": Pair(Question(ref(below), "view", viewer), Question(on_root, "view", viewer)),
        "permission": Pair(Question(ref(below), "view", viewer), Question(ref(below), "edit", viewer)),
        "subject type": Pair(
            Question(on_root, "view", alice), Question(on_root, "view", SubjectRef("api_key", "alice"))
        ),
        "subject": Pair(Question(on_root, "view", alice), Question(on_root, "view", bob)),
        "subject relation": Pair(Question(on_root, "view", roster), Question(on_root, "view", others)),
    }


@pytest.mark.parametrize(
    "part", ["resource type", "resource", "permission", "subject type", "subject", "subject relation"]
)
async def test_questions_that_differ_in_one_part_have_answers_of_their_own(asking: Asking, part: str) -> None:
    tenant, root = await asking.tenant()
    below, team = [await asking.parts.workspace(root, slug) for slug in ("below", "team")]
    await asking.parts.role(below, "viewer", Role.VIEWER)
    shared = SubjectRef("workspace", spicedb_id(tenant.id, "workspace", team.id), "roster")
    await touch(asking.spicedb, Tuple(stored(tenant, ref(root)), "shared_viewer", shared))
    await asking.in_force(tenant)
    pair = pairs(tenant, root, below, team)[part]
    for questions, expected in (((pair.first, pair.second), (ALLOWED, DENIED)),
                                ((pair.second, pair.first), (DENIED, ALLOWED))):  # fmt: skip
        asking.use(Decisions(100, 60))
        for _ in range(2):
            assert tuple([(await asking.ask(q, tenant.id)).decision for q in questions]) == expected


async def test_tenants_share_no_answers(asking: Asking) -> None:
    (one, root), (two, _) = [await asking.tenant() for _ in range(2)]
    question = Question(ref(root), "view", SubjectRef("user", "alice"))
    for _ in range(2):
        assert (await asking.ask(question, one.id)).decision is ALLOWED
        assert (await asking.ask(question, two.id)).decision is DENIED


# -- what is not kept, and not given ----------------------------------------------------------------------


async def by_minimal_latency(_: Tenant, __: Asking) -> Consistency:
    return Consistency(minimize_latency=True)


async def fully_consistent(_: Tenant, __: Asking) -> Consistency:
    return Consistency(fully_consistent=True)


async def at_another_tenants_token(tenant: Tenant, asking: Asking) -> Consistency:
    other, _ = await asking.tenant()
    await asking.in_force(tenant)
    return Consistency(at_least_as_fresh=asking.parts.signer.token({tenant.id: 1, other.id: 1}))


@pytest.mark.parametrize("how", [by_minimal_latency, fully_consistent, at_another_tenants_token])
async def test_such_a_question_neither_gets_a_kept_answer_nor_is_its_own_kept(
    asking: Asking, how: Callable[[Tenant, Asking], Awaitable[Consistency]]
) -> None:
    tenant, root = await asking.tenant()
    consistency = await how(tenant, asking)
    question = Question(ref(root), "view", SubjectRef("user", "bob"))

    async def asks(consistency: Consistency) -> int:
        before = len(asking.spicedb.asked)
        await asking.ask(question, tenant.id, consistency)
        items = [(tenant.id, question)]
        await asking.authorizer.batch_check(asking.parts.system, items, consistency, in_time())
        return len(asking.spicedb.asked) - before

    assert [await asks(consistency) for _ in range(2)] == [2, 2]
    assert [await asks(Consistency()) for _ in range(2)] == [1, 0]
    assert await asks(consistency) == 2


@pytest.mark.parametrize("how", [fully_consistent, at_another_tenants_token])
async def test_such_a_question_sees_what_a_kept_answer_does_not(
    asking: Asking, how: Callable[[Tenant, Asking], Awaitable[Consistency]]
) -> None:
    """Another tenant's stream may have changed this tenant's answers."""
    tenant, root = await asking.tenant()
    consistency = await how(tenant, asking)
    question = Question(ref(root), "view", SubjectRef("user", "bob"))
    assert (await asking.ask(question, tenant.id)).decision is DENIED
    await touch(asking.spicedb, Tuple(stored(tenant, ref(root)), "viewer", SubjectRef("user", "bob")))
    assert (await asking.ask(question, tenant.id)).decision is DENIED
    assert (await asking.ask(question, tenant.id, consistency)).decision is ALLOWED


@pytest.mark.parametrize("how", [fully_consistent, at_another_tenants_token])
async def test_such_a_question_is_put_after_a_look_for_spicedbs_head(
    asking: Asking, how: Callable[[Tenant, Asking], Awaitable[Consistency]]
) -> None:
    """By itself it may be told of a head that SpiceDB began to look for before: it looks once for all who ask."""
    tenant, root = await asking.tenant()
    consistency = await how(tenant, asking)
    question = Question(ref(root), "view", SubjectRef("user", "bob"))
    await asking.ask(question, tenant.id)
    assert (asking.spicedb.heads, len(asking.spicedb.asked)) == ([], 1)
    await asking.ask(question, tenant.id, consistency)
    await asking.authorizer.batch_check(asking.parts.system, [(tenant.id, question)], consistency, in_time())
    assert (asking.spicedb.heads, len(asking.spicedb.asked)) == ([1, 2], 3)


async def test_a_token_of_this_tenant_and_the_global_stream_gets_what_is_kept(asking: Asking) -> None:
    tenant, root = await asking.tenant()
    assert await asking.asks(root, "bob") == 1
    token = asking.parts.signer.token({tenant.id: 1})
    assert await asking.asks(root, "bob", at_least_as_fresh=token) == 0


async def test_a_suspension_denies_whatever_is_kept_and_the_kept_answer_stands_after_it(asking: Asking) -> None:
    _, root = await asking.tenant()
    assert await asking.may_view(root, "alice") == ALLOWED
    await asking.set_status("alice")
    await asking.feed.poll()
    question = Question(ref(root), "view", SubjectRef("user", "alice"))
    denied = await asking.ask(question, root.tenant_id)
    assert (denied.decision, denied.reason) == (DENIED, Reason.USER_SUSPENDED)
    await asking.set_status("alice", "active")
    await asking.feed.poll()
    assert await asking.asks(root, "alice") == 0
    assert await asking.may_view(root, "alice") == ALLOWED


async def test_all_permissions_are_of_one_revision_although_single_answers_are_kept(asking: Asking) -> None:
    """At one position there are many revisions: of a change that is not recorded yet, half would show."""
    tenant, _ = await asking.parts.tenant()  # nothing is delivered: each is asked fully consistent
    bob = SubjectRef("user", "bob")
    administer, view = (Question(ref(tenant), permission, bob) for permission in ("administer", "view"))
    assert (await asking.ask(view, tenant.id)).decision is DENIED
    await touch(asking.spicedb, Tuple(stored(tenant, ref(tenant)), "admin", bob))
    assert (await asking.ask(administer, tenant.id)).decision is ALLOWED
    for _ in range(2):
        found = await asking.authorizer.check_all(
            asking.parts.system, tenant.id, [administer, view], Consistency(), in_time()
        )
        assert {p: a.decision for p, a in found.answers.items()} == {"administer": ALLOWED, "view": ALLOWED}
    assert len(asking.spicedb.asked) == 4, "the second time they were known"


async def test_where_only_some_of_all_permissions_are_kept_all_are_asked(asking: Asking) -> None:
    asking.use(Decisions(1, 60))
    tenant, _ = await asking.parts.tenant()
    questions = [Question(ref(tenant), permission, SubjectRef("user", "bob")) for permission in ("administer", "view")]

    async def ask() -> set[Decision]:
        ground = asking.parts.system, tenant.id, questions, Consistency(), in_time()
        return {answer.decision for answer in (await asking.authorizer.check_all(*ground)).answers.values()}

    assert await ask() == {DENIED}
    await touch(asking.spicedb, Tuple(stored(tenant, ref(tenant)), "admin", SubjectRef("user", "bob")))
    assert await ask() == {ALLOWED}


# -- several at once --------------------------------------------------------------------------------------


async def test_the_same_question_asked_at_once_goes_to_spicedb_once(asking: Asking) -> None:
    _, root = await asking.tenant()
    asking.spicedb.gate.clear()
    together = [asyncio.create_task(asking.may_view(root, "alice")) for _ in range(20)]
    different = asyncio.create_task(asking.may_view(root, "bob"))
    await eventually(lambda: was_asked(asking, 2))
    asking.spicedb.gate.set()
    assert set(await asyncio.gather(*together)) == {ALLOWED}
    assert await different == DENIED
    assert len(asking.spicedb.asked) == 2


@pytest.mark.parametrize("goes", [0, 1], ids=["the_first", "who_joined"])
async def test_who_asks_at_the_same_time_outlives_the_one_that_goes_away(asking: Asking, goes: int) -> None:
    _, root = await asking.tenant()
    await asking.may_view(root, "bob")  # the tenant is known, so that both ask at once
    asking.spicedb.gate.clear()
    together = [asyncio.create_task(asking.may_view(root, "alice")) for _ in range(2)]
    await eventually(lambda: was_asked(asking, 2))
    gone, stays = together[goes], together[1 - goes]
    gone.cancel()
    await asyncio.wait({gone})
    assert gone.cancelled()
    asking.spicedb.gate.set()
    assert await stays == ALLOWED
    assert len(asking.spicedb.asked) == 2
    assert await asking.asks(root, "alice") == 0


async def test_who_asks_at_the_same_time_outlives_the_first_ones_deadline(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, root = await asking.tenant()
    question = Question(ref(root), "view", SubjectRef("user", "alice"))
    check = CountingSpiceDB.check

    async def slow(self: CountingSpiceDB, question: object, freshness: object, timeout: float) -> CheckResult:
        if timeout > 1:
            return await check(self, question, freshness, timeout)
        asking.spicedb.asked.append(FullyConsistent())
        await asyncio.sleep(timeout)
        raise Timeout

    monkeypatch.setattr(CountingSpiceDB, "check", slow)
    impatient = asyncio.create_task(asking.ask(question, root.tenant_id, seconds=0.3))
    await eventually(lambda: was_asked(asking, 1))
    patient = asyncio.create_task(asking.ask(question, root.tenant_id))
    with pytest.raises(Timeout):
        await impatient
    assert (await patient).decision is ALLOWED


# -- schemas, caveats -------------------------------------------------------------------------------------

TEXT = schema.schema_text()
ONE = TEXT.replace(
    "relation member: user | api_key | group#member\n\n\tpermission administer = admin\n",
    "relation member: user | user with on_day | api_key | group#member\n\n\tpermission administer = admin\n",
).replace("definition user {}", 'caveat on_day(day string) {\n\tday == "monday"\n}\n\ndefinition user {}')
TWO = ONE.replace("permission view = member + administer", "permission view = administer")


@pytest.fixture
async def own(followed: Followed, bare_spicedb) -> AsyncIterator[Asking]:
    """With a SpiceDB of its own, that has the schema ONE by an apply."""
    client = CountingSpiceDB.connect(bare_spicedb.endpoint, bare_spicedb.key)
    asking = Asking(followed.parts, followed.feed, followed.url, client)
    await apply(asking, ONE)
    yield asking
    await client.close()


async def apply(asking: Asking, text: str) -> None:
    async with SchemaVersions.connect(asking.url) as ledger:
        await schema_apply.apply(asking.spicedb, ledger, text)


async def test_no_answer_outlives_its_schema(own: Asking) -> None:
    assert TWO != ONE
    await own.feed.poll()
    tenant, _ = await own.tenant()
    await own.parts.role(tenant, "bob", Role.MEMBER)
    await own.in_force(tenant)
    never_asked, _ = await own.tenant()
    assert [await own.asks(tenant, "bob") for _ in range(2)] == [1, 0]
    assert await own.may_view(tenant, "bob") == ALLOWED
    assert isinstance(own.spicedb.asked[-1], AtLeast)

    async with SchemaVersions.connect(own.url) as ledger:
        number = await ledger.begin(schema.digest(TWO), TWO)
        await own.feed.poll()
        for asked in (tenant, never_asked):
            assert [await own.asks(asked, "bob") for _ in range(2)] == [1, 1], "nothing is kept"
        assert own.spicedb.asked[-1] == FullyConsistent(), "no revision is known to be fresh"
        assert await own.may_view(tenant, "bob") == ALLOWED
        zedtoken = await schema.write(own.spicedb, TWO)
        assert await own.may_view(tenant, "bob") == DENIED
        await ledger.finish(number, zedtoken)
    assert await own.may_view(tenant, "bob") == DENIED
    await own.feed.poll()
    assert [await own.asks(tenant, "bob") for _ in range(2)] == [1, 0]
    assert await own.may_view(tenant, "bob") == DENIED
    assert own.spicedb.asked[-1] == FullyConsistent()
    await own.parts.role(tenant, "carol", Role.MEMBER)
    await own.in_force(tenant)
    assert await own.may_view(tenant, "bob") == DENIED
    assert isinstance(own.spicedb.asked[-1], AtLeast), "written under the schema in force"


async def test_the_answers_under_a_schema_go_with_the_look_that_tells_of_the_next(own: Asking) -> None:
    """Begun and finished between two looks."""
    await own.feed.poll()
    tenant, _ = await own.tenant()
    await own.parts.role(tenant, "bob", Role.MEMBER)
    await own.in_force(tenant)
    assert await own.may_view(tenant, "bob") == ALLOWED
    await apply(own, TWO)
    await own.feed.poll()
    assert await own.may_view(tenant, "bob") == DENIED


async def test_what_a_caveat_decides_is_asked_each_time(own: Asking) -> None:
    await own.feed.poll()
    tenant, _ = await own.parts.tenant()
    await write_on_day(own.spicedb, tenant, "bob")
    await own.in_force(tenant)
    bob, plain = SubjectRef("user", "bob"), SubjectRef("user", "carol")

    async def ask(subject: SubjectRef, day: str = "") -> tuple[Decision, Decision, int]:
        """Alone, in a batch, and how often SpiceDB was asked."""
        before = len(own.spicedb.asked)
        question = Question(ref(tenant), "view", subject, {"day": day} if day else {})
        fresh = Consistency(at_least_as_fresh=own.parts.signer.token({tenant.id: 1}))
        alone = await own.ask(question, tenant.id, fresh)
        [one] = (await own.authorizer.batch_check(own.parts.system, [(tenant.id, question)], fresh, in_time())).results
        return alone.decision, one.decision, len(own.spicedb.asked) - before

    for _ in range(2):
        assert await ask(bob) == (CONDITIONAL, CONDITIONAL, 2)
        assert await ask(bob, "monday") == (ALLOWED, ALLOWED, 2)
        assert await ask(bob, "friday") == (DENIED, DENIED, 2)
        assert await ask(plain, "friday") == (DENIED, DENIED, 2), "a context of the caller's, needed or not"
    assert await ask(plain) == (DENIED, DENIED, 1)
    assert await ask(plain) == (DENIED, DENIED, 0)


async def test_all_permissions_are_of_one_revision_where_a_caveat_decides_as_well(own: Asking) -> None:
    """Two ask for them at once, and the later answers have one that is not kept."""
    await own.feed.poll()
    tenant, _ = await own.parts.tenant()
    bob = SubjectRef("user", "bob")
    questions = [Question(ref(tenant), permission, bob) for permission in ("administer", "view")]
    admin = Tuple(stored(tenant, ref(tenant)), "admin", bob)
    await touch(own.spicedb, admin)

    async def ask(authorizer: Authorizer) -> list[Decision]:
        found = await authorizer.check_all(own.parts.system, tenant.id, questions, Consistency(), in_time())
        return [answer.decision for answer in found.answers.values()]

    second = SpiceDB(own.spicedb.channel, own.spicedb.key)
    ahead = Authorizer(own.parts.database, second, own.parts.signer, own.feed, own.decisions, 10)
    await own.may_view(tenant, "carol")  # the tenant is known
    own.spicedb.gate.clear()
    late = asyncio.create_task(ask(own.authorizer))
    await eventually(lambda: was_asked(own, 3))
    before = await ask(ahead)
    assert before == [ALLOWED, ALLOWED]
    await own.spicedb.write([TupleOperation(Operation.DELETE, admin)], metadata={}, timeout=5)
    await write_on_day(own.spicedb, tenant, "bob")
    own.spicedb.gate.set()
    after = await late
    assert after == [DENIED, CONDITIONAL]
    assert await ask(ahead) in (before, after)


async def write_on_day(client: CountingSpiceDB, tenant: Tenant, user: str) -> None:
    from authzed.api.v1 import (
        ContextualizedCaveat,
        ObjectReference,
        Relationship,
        RelationshipUpdate,
        SubjectReference,
        WriteRelationshipsRequest,
    )
    from authzed.api.v1.permission_service_pb2_grpc import PermissionsServiceStub

    relationship = Relationship(
        resource=ObjectReference(object_type="tenant", object_id=stored(tenant, ref(tenant)).id),
        relation="member",
        subject=SubjectReference(object=ObjectReference(object_type="user", object_id=user)),
        optional_caveat=ContextualizedCaveat(caveat_name="on_day"),
    )
    update = RelationshipUpdate(operation=RelationshipUpdate.OPERATION_TOUCH, relationship=relationship)
    await PermissionsServiceStub(client.channel).WriteRelationships(
        WriteRelationshipsRequest(updates=[update]), timeout=5, metadata=client.metadata
    )


# -- short ways -------------------------------------------------------------------------------------------


def in_time() -> float:
    return asyncio.get_running_loop().time() + 10


async def was_asked(asking: Asking, times: int) -> bool:
    return len(asking.spicedb.asked) >= times


def stored(tenant: Tenant, at: ObjectRef) -> ObjectRef:
    return ObjectRef(at.type, spicedb_id(tenant.id, at.type, at.id))


async def touch(client: CountingSpiceDB, tuple_: Tuple) -> None:
    """Past the outbox, as a change whose delivery is not recorded yet."""
    await client.write([TupleOperation(Operation.TOUCH, tuple_)], metadata={}, timeout=5)
