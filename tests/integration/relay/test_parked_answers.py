"""What is answered while operations of a tenant are parked, and how they come true."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from pemba.authorizer import authorizer, feed, lookups
from pemba.authorizer.ground import Position
from pemba.model import Operation, Role, Seq, TenantId, Tuple, TupleOperation
from pemba.relay.batches import batch
from pemba.relay.fence import Fence
from pemba.relay.lane import Lane
from pemba.relay.parked_retries import ParkedRetries
from pemba.relay.parking import Parking
from pemba.service.parked import Retries
from pemba.spicedb import schema, schema_apply
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from pemba.storage.leases import Lease
from pemba.storage.outbox import OutboxRow
from pemba.storage.schema_versions import SchemaVersions
from pemba.storage.wakeup import Notifier
from pemba.v1 import permissions_pb2 as pb
from pemba.v1 import permissions_pb2_grpc, types_pb2, workspaces_pb2
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.relay.conftest import Relaying, Seized, Serving, take_over
from tests.integration.relay.test_delivery import Made, add_rows, tenant_in, touch
from tests.integration.relay.test_parking import Refusing, delivery_of, nonsense, ops, parked_rows
from tests.stack import Calls, Refusal
from tests.truth import eventually, is_delivered, projected, require_truth, sql, stored


@pytest.fixture
async def retries(database: Database) -> AsyncIterator[ParkedRetries]:
    notifier = Notifier(database)
    yield ParkedRetries(database, Retries(database, notifier))
    await notifier.close()


def is_parked(refusal: Any) -> bool:
    return (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TENANT_PARKED")


class Asking:
    """Every kind of question about a workspace."""

    def __init__(self, calls: Calls, workspace: workspaces_pb2.Workspace) -> None:
        self._calls = calls
        self._stub = permissions_pb2_grpc.PermissionServiceStub(calls.channel)
        self._of = {
            "tenant_id": workspace.tenant_id,
            "resource": types_pb2.ObjectRef(type="workspace", id=workspace.id),
        }

    def ways(self, user: str, consistency: types_pb2.Consistency | None = None) -> dict[str, Callable[[], Any]]:
        subject, metadata = types_pb2.SubjectRef(type="user", id=user), self._calls.metadata
        given = {**self._of, "subject": subject, "consistency": consistency}
        tenant_id = self._of["tenant_id"]

        async def batch() -> None:
            item = pb.BatchCheckItem(**self._of, permission="view", subject=subject)
            request = pb.BatchCheckRequest(items=[item], consistency=consistency)
            answer = await self._stub.BatchCheck(request, metadata=metadata)
            if answer.results[0].HasField("error"):
                raise ItemError(answer.results[0].error)

        async def stream(call: Any) -> None:
            async for _ in call:
                pass

        by_subject = pb.LookupResourcesRequest(
            tenant_id=tenant_id, type="workspace", permission="view", subject=subject, consistency=consistency
        )
        by_object = pb.LookupSubjectsRequest(
            **self._of, permission="view", subject_type="user", consistency=consistency
        )
        return {
            "Check": lambda: self._stub.Check(pb.CheckRequest(**given, permission="view"), metadata=metadata),
            "CheckAll": lambda: self._stub.CheckAll(pb.CheckAllRequest(**given), metadata=metadata),
            "BatchCheck": batch,
            "LookupResources": lambda: stream(self._stub.LookupResources(by_subject, metadata=metadata)),
            "LookupSubjects": lambda: stream(self._stub.LookupSubjects(by_object, metadata=metadata)),
        }

    async def refused(self, user: str, consistency: types_pb2.Consistency | None = None) -> set[str]:
        """The ways that get TENANT_PARKED; all others are answered."""
        failures = {name: await failure_of(ask()) for name, ask in self.ways(user, consistency).items()}
        assert all(failure is None or is_parked(failure) for failure in failures.values())
        return {name for name, failure in failures.items() if failure is not None}


class ItemError(Exception):
    """Of one item of a batch."""

    def __init__(self, status: Any) -> None:
        super().__init__(status.message)
        info = error_details_pb2.ErrorInfo()
        status.details[0].Unpack(info)
        self.refusal = SimpleNamespace(code=CODES[status.code], reason=info.reason)


CODES = {code.value[0]: code for code in grpc.StatusCode}


async def failure_of(call: Awaitable[object]) -> Any:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return Refusal(error)
    except ItemError as error:
        return error.refusal
    return None


ALL_WAYS = {"Check", "CheckAll", "BatchCheck", "LookupResources", "LookupSubjects"}


def as_made(made: Any) -> Made:
    """A tenant made over gRPC, as the tests of the relay name it."""
    tenant, root = made.tenant, made.root_workspace
    return tenant, root


async def test_only_who_asks_for_what_is_parked_to_be_in_force_is_refused(
    serving: Serving, relaying: Relaying, database_url: str
) -> None:
    async with serving() as calls, relaying():
        made = await calls.tenant("acme")
        root = made.root_workspace
        before = await calls.grant(root, "bob")
        await add_rows(database_url, made.tenant, touch(nonsense(as_made(made))))
        after = await calls.grant(root, "carol")
        await eventually(lambda: is_delivered(database_url, root.tenant_id))
        asking = Asking(calls, root)
        refusal = await failure_of(calls.may_view(root, "carol", after))
        assert is_parked(refusal)
        assert (refusal.metadata["stream"], refusal.metadata["seq"]) == (root.tenant_id, "3")
        at_the_row = types_pb2.Consistency(at_least_as_fresh=after)
        assert await asking.refused("carol", at_the_row) == ALL_WAYS
        assert await asking.refused("carol", types_pb2.Consistency(fully_consistent=True)) == ALL_WAYS
        assert await asking.refused("carol", types_pb2.Consistency(at_least_as_fresh=before)) == set()
        assert await asking.refused("carol") == set()
        assert await calls.may_view(root, "carol")

        other = await calls.tenant("other")
        assert await calls.may_view(other.root_workspace, "alice", other.token)
        assert is_parked(await failure_of(calls.may_view(other.root_workspace, "alice", after)))


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_tenant_in_which_a_revoke_could_not_be_delivered_is_closed_and_kept_answers_with_it(
    serving: Serving,
    relaying: Relaying,
    store: SpiceDB,
    retries: ParkedRetries,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    if not guarded:
        monkeypatch.setattr(authorizer, "parked", lambda *_: None)
        monkeypatch.setattr(lookups, "parked", lambda *_: None)
    async with serving() as calls:
        made = await calls.tenant("acme")
        root = made.root_workspace
        asking = Asking(calls, root)
        async with relaying():
            assert await calls.may_view(root, "mallory", await calls.grant(root, "mallory"))
        assert await calls.may_view(root, "mallory"), "kept from now on"
        await calls.revoke(root, "mallory")
        async with relaying(Refusing):
            await eventually(lambda: is_delivered(database_url, root.tenant_id))
            await eventually(lambda: closed_or(calls, root, guarded))
            assert await asking.refused("mallory") == (ALL_WAYS if guarded else set())
            least = types_pb2.Consistency(minimize_latency=True)
            assert await asking.refused("mallory", least) == (ALL_WAYS if guarded else set())
        if not guarded:
            assert await calls.may_view(root, "mallory"), "with more than the records say"
            return
        await retries._retries.everything(SYSTEM, None)
        async with relaying():
            await require_truth(database_url, store, root.tenant_id)
            await eventually(lambda: opened(calls, root))
        assert not await calls.may_view(root, "mallory")
        assert await parked_rows(database_url) == []


async def closed_or(calls: Calls, root: workspaces_pb2.Workspace, guarded: bool) -> bool:
    return not guarded or not await opened(calls, root)


async def opened(calls: Calls, root: workspaces_pb2.Workspace) -> bool:
    failure = await failure_of(calls.may_view(root, "alice"))
    assert failure is None or is_parked(failure)
    return failure is None


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_schema_apply_closes_tenants_with_parked_operations_until_these_were_tried_under_it(
    serving: Serving,
    seized: Seized,
    parts: Parts,
    retries: ParkedRetries,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    if not guarded:
        real = feed._position

        def whatever_the_schema(*given: Any) -> Position:
            return replace(real(*given), closed=given[1].closed)

        monkeypatch.setattr(feed, "_position", whatever_the_schema)
    made = await tenant_in(parts, 5)
    healthy = await tenant_in(parts, 5)
    root = workspaces_pb2.Workspace(tenant_id=made[0].id, id=made[1].id)
    other = workspaces_pb2.Workspace(tenant_id=healthy[0].id, id=healthy[1].id)
    await add_rows(database_url, made[0], touch(f"nothing:{made[0].id}/x#owner@user:x"))
    lane = await seized(5)
    await lane.run_once()
    async with serving() as calls, SchemaVersions.connect(database_url) as ledger:
        assert await calls.may_view(root, "alice")
        number = await ledger.begin("digest", "text")
        await eventually(lambda: closed_or(calls, root, guarded))
        assert await retries.run_once() == 0, "while it is under way nobody can say what it will take"
        await ledger.finish(number, "zedtoken")
        assert await calls.may_view(other, "alice")
        assert await opened(calls, root) is not guarded
        assert await retries.run_once() == 1
        assert await opened(calls, root) is not guarded, "committed is not delivered"
        assert await lane.run_once() == 1
        await eventually(lambda: opened(calls, root))
        assert (await delivery_of(database_url, made[0].id)) == (2, number + 1, False)
        for _ in range(3):
            assert await retries.run_once() == 0, "nothing is tried for ever"
            assert await lane.run_once() == 0


def without_viewers(text: str) -> str:
    """Pemba's schema before it had viewers."""
    older = text.replace("	relation viewer: user | api_key | group#member\n", "")
    older = older.replace(" + member + viewer", " + member").replace("= viewer + shared_viewer", "= shared_viewer")
    assert older.count("viewer") == text.count("viewer") - 3
    return older


@asynccontextmanager
async def on_its_own(server: Any) -> AsyncIterator[SpiceDB]:
    store = SpiceDB.connect(server.endpoint, server.key)
    try:
        yield store
    finally:
        await store.close()


async def test_with_the_schema_behind_parked_operations_come_true_by_the_apply_that_brings_it(
    parts: Parts, database: Database, bare_spicedb: Any, retries: ParkedRetries, database_url: str
) -> None:

    made = await tenant_in(parts, 5)
    for user in ("bob", "carol", "dave"):
        await parts.role(made[1], user, Role.VIEWER)
    await parts.role(made[1], "erin", Role.MEMBER)
    text = schema.schema_text()
    async with on_its_own(bare_spicedb) as store, SchemaVersions.connect(database_url) as ledger:
        await schema_apply.apply(store, ledger, without_viewers(text))
        lane = Lane(Fence(await take_over(database, 5), database, store, 5.0), database, store, 5.0)
        await lane.run_once()
        assert await is_delivered(database_url, made[0].id)
        assert len(await parked_rows(database_url)) == 3
        missing = await projected(database_url, made[0].id) - await stored(store, made[0].id)
        assert {t.subject.id for t in missing} == {"bob", "carol", "dave"}
        await parts.remove(made[1], "dave")
        await lane.run_once()
        assert len(await parked_rows(database_url)) == 2, "what the records took back is parked no more"
        assert await retries.run_once() == 0

        await schema_apply.apply(store, ledger, text)
        assert await retries.run_once() == 2
        await lane.run_once()
        assert await parked_rows(database_url) == []
        assert await delivery_of(database_url, made[0].id) == (None, None, False)
        await require_truth(database_url, store, made[0].id)
    rows = await sql(
        database_url,
        "SELECT principal, object, jsonb_array_length(ops) AS count FROM audit WHERE method = 'RetryParked'",
    )
    assert [tuple(row) for row in rows] == [("pemba:relay", f"tenant:{made[0].id}", 2)]


APPLICATION = """
definition document {
	relation viewer: user
	relation banned: user
	permission view = viewer%s
}
"""


@pytest.mark.parametrize(
    ("expression", "tuple_text", "effect"),
    [
        ("", "document:{id}#banned@tenant:x", "grants_less"),
        (" - banned", "document:{id}#banned@tenant:x", "restricts"),
        (" - banned", "document:{id}#blocked@user:x", "grants_less"),
        (" - banned", "paper:{id}#banned@user:x", "grants_less"),
        (" - banned", "workspace:{id}#owner@tenant:x", "restricts"),
    ],
    ids=["nothing subtracts", "may be subtracted", "unknown relation", "unknown type", "Pemba's, drawn from elsewhere"],
)
async def test_a_refused_grant_restricts_where_the_schema_subtracts_and_knows_the_relation(
    parts: Parts,
    database: Database,
    bare_spicedb: Any,
    retries: ParkedRetries,
    database_url: str,
    expression: str,
    tuple_text: str,
    effect: str,
) -> None:

    made = await tenant_in(parts, 5)
    refused = tuple_text.format(id=f"{made[0].id}/x")
    await add_rows(database_url, made[0], touch(refused))
    async with on_its_own(bare_spicedb) as store:
        await schema.write(store, schema.schema_text() + APPLICATION % expression)
        lane = Lane(Fence(await take_over(database, 5), database, store, 5.0), database, store, 5.0)
        await lane.run_once()
    assert [(row[3], row[4]) for row in await parked_rows(database_url)] == [(refused, effect)]
    assert (await delivery_of(database_url, made[0].id))[2] is (effect == "restricts")


@dataclass(frozen=True, slots=True)
class WithCaveat(Tuple):
    """A tuple that carries a condition."""

    caveat: str = "soon"


@pytest.mark.parametrize(("allowed", "effect"), [("user with soon", "withdrawn"), ("tenant", "grants_less")])
async def test_in_place_of_a_refused_grant_with_conditions_a_plain_delete_goes_where_that_is_taken(
    bare_spicedb: Any, database: Database, allowed: str, effect: str
) -> None:
    text = schema.schema_text() + "caveat soon(x int) { x == 1 }\ndefinition document {\n relation viewer: %s\n}"
    plain = Tuple.parse("document:ten_1/x#viewer@user:bob")
    grant = TupleOperation(Operation.TOUCH, WithCaveat(plain.resource, plain.relation, plain.subject))
    request = batch(TenantId("ten_1"), [OutboxRow(Seq(1), (grant,), {}, 0.0)])
    async with on_its_own(bare_spicedb) as store:
        await schema.write(store, text % allowed)
        [refusal] = await Parking(Lease(3, 1, "this"), database, store, 5.0).refusals([request])
    assert (refusal.effect, refusal.seq) == (effect, 1)
    in_place = (TupleOperation(Operation.DELETE, plain),) if effect == "withdrawn" else ()
    assert request.without([refusal]).operations == in_place


async def test_of_an_applications_type_the_parked_operation_is_repeated_unless_a_later_row_has_the_last_word(
    parts: Parts, seized: Seized, retries: ParkedRetries, database_url: str
) -> None:
    made = await tenant_in(parts, 5)
    stands, taken_back = (f"document:{made[0].id}/{n}#viewer@user:x" for n in "ab")
    await add_rows(database_url, made[0], ops(("touch", stands), ("touch", taken_back)))
    await (await seized(5)).run_once()
    assert len(await parked_rows(database_url)) == 2
    await add_rows(database_url, made[0], ops(("delete", taken_back)))
    await retries._retries.everything(SYSTEM, TenantId(made[0].id))
    [row] = await sql(database_url, "SELECT ops FROM outbox WHERE tenant_id = $1 AND seq = 4", made[0].id)
    assert stands in row["ops"]
    assert taken_back not in row["ops"]


async def test_a_thousand_parked_operations_are_repaired_in_rows_of_five_hundred(
    parts: Parts, seized: Seized, retries: ParkedRetries, database_url: str
) -> None:
    made = await tenant_in(parts, 5)

    def many(n: str) -> str:
        return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
            'document:{made[0].id}/x#viewer@user:u-' || {n} || '-' || i)) FROM generate_series(1, 400) AS i)"""

    await add_rows(database_url, made[0], many, rows=3)
    lane = await seized(5)
    while await lane.run_once():
        pass
    assert len(await parked_rows(database_url)) == 1200
    count, at = await retries._retries.everything(SYSTEM, None)
    assert (count, at) == (1200, {made[0].id: 7})
    rows = await sql(database_url, "SELECT op_count FROM outbox WHERE seq > 4 ORDER BY seq")
    assert [row["op_count"] for row in rows] == [500, 500, 200]
    while await lane.run_once():
        pass
    assert len(await parked_rows(database_url)) == 1200
    assert (await delivery_of(database_url, made[0].id))[0] == 2
