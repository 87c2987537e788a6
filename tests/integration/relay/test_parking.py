"""What SpiceDB refuses is found without a write and parked by operation, and the stream of its tenant goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY

from pemba.model import Operation, Role, Tuple, TupleOperation, Workspace
from pemba.relay.batches import Batch
from pemba.relay.fence import Fence, FenceInDoubt
from pemba.relay.lane import Lane
from pemba.relay.parking import Parking
from pemba.service.parked import Retries
from pemba.spicedb import left_out
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.storage import delivery
from pemba.storage.database import Database
from pemba.storage.leases import LeaseLost
from pemba.storage.parked import Refusal
from pemba.storage.wakeup import Notifier
from tests.integration.conftest import Parts
from tests.integration.relay.conftest import Relaying, Seized, take_over
from tests.integration.relay.test_delivery import Made, add_rows, object_of, tenant_in, touch
from tests.proxy import Proxy
from tests.truth import as_owner, eventually, is_delivered, positions, projected, require_truth, sql, stored

NEVER = b"never"


async def parked_rows(url: str, tenant_id: str = "") -> list[tuple[int, int, str, str, str]]:
    """(row, since row, operation, tuple, effect) of what is parked."""
    rows = await sql(
        url, "SELECT * FROM parked_operation WHERE $1 IN ('', tenant_id) ORDER BY tenant_id, seq, tuple", tenant_id
    )
    return [(r["seq"], r["since_seq"], r["op"], r["tuple"], r["effect"]) for r in rows]


async def delivery_of(url: str, tenant_id: str) -> tuple[int | None, int | None, bool]:
    """parked_from, parked_under, closed."""
    [row] = await sql(url, "SELECT * FROM tenant_delivery WHERE tenant_id = $1", tenant_id)
    return row["parked_from"], row["parked_under"], row["closed"]


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


def nonsense(made: Made, user: str = "mallory") -> str:
    """A tuple of a relation that no schema has."""
    return f"{object_of(made)}#no_such_relation@user:{user}"


def ops(*operations: tuple[str, str]) -> Callable[[str], str]:
    """SQL for a row of these operations."""
    built = ", ".join(f"jsonb_build_object('op', '{op}', 'tuple', '{text}')" for op, text in operations)
    return lambda _: f"jsonb_build_array({built})"


@pytest.mark.parametrize(
    "tuple_text",
    [
        "workspace:{id}#no_such_relation@user:mallory",
        "nothing:{id}#owner@user:x",
        "workspace:{id}#owner@tenant:x",
        "workspace:{id}#view@user:mallory",
        "workspace:{id}=.!#owner@user:mallory",
    ],
    ids=["relation", "definition", "subject type", "a permission", "malformed"],
)
async def test_a_refused_grant_is_parked_and_all_else_of_its_tenant_and_the_others_is_delivered(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str, tuple_text: str
) -> None:
    poisoned, healthy = await tenant_in(parts, 3), await tenant_in(parts, 3)
    refused = tuple_text.format(id=f"{poisoned[0].id}/x")
    await add_rows(database_url, poisoned[0], touch(refused))
    await parts.role(poisoned[1], "bob", Role.VIEWER)
    await parts.role(healthy[1], "carol", Role.VIEWER)
    before = counted("pemba_relay_write_failures_total", kind="OPERATION")
    with structlog.testing.capture_logs() as logged:
        async with relaying():
            for tenant, _ in (poisoned, healthy):
                await eventually(lambda tenant=tenant: is_delivered(database_url, tenant.id), 5)
                assert await stored(store, tenant.id) == await projected(database_url, tenant.id)
    assert await parked_rows(database_url) == [(2, 2, "touch", refused, "grants_less")]
    assert await delivery_of(database_url, poisoned[0].id) == (2, 0, False)
    [told] = [event for event in logged if event["event"] == "delivery_parked"]
    assert (told["tenant_id"], told["seq"], told["tuple"]) == (poisoned[0].id, 2, refused)
    assert told["cause"]
    assert "pemba outbox" in told["help"]
    assert counted("pemba_relay_write_failures_total", kind="OPERATION") == before + 1


async def test_one_poison_among_five_hundred_is_found_by_few_probes_and_the_next_revoke_follows_at_once(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    await parts.role(made[1], "mallory", Role.VIEWER)
    async with relaying():
        await require_truth(database_url, store, made[0].id)

        def many(n: str) -> str:
            return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple', CASE i WHEN 337
                THEN '{nonsense(made)}' ELSE '{object_of(made)}#viewer@user:u-' || i END))
                FROM generate_series(1, 500) AS i)"""

        await add_rows(database_url, made[0], many)
        await parts.remove(made[1], "mallory")
        await eventually(lambda: is_delivered(database_url, made[0].id), 5)
    assert len(await stored(store, made[0].id)) == 2 + 499
    assert [row[3] for row in await parked_rows(database_url)] == [nonsense(made)]
    assert 9 <= spicedb_proxy.seen(NEVER) <= 2 * 9 + 2


async def test_poisons_of_several_tenants_in_one_request_are_all_found(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str
) -> None:
    made = [await tenant_in(parts, 6) for _ in range(3)]
    for each in made[:2]:
        await add_rows(database_url, each[0], touch(nonsense(each)))
        await add_rows(database_url, each[0], touch(f"nothing:{each[0].id}/x#owner@user:x"))
    for each in made:
        await parts.role(each[1], "bob", Role.VIEWER)
    lane = await seized(6)
    await lane.run_once()
    for tenant, _ in made:
        assert await is_delivered(database_url, tenant.id)
        assert await stored(store, tenant.id) == await projected(database_url, tenant.id)
        assert len(await parked_rows(database_url, tenant.id)) == (0 if tenant is made[2][0] else 2)
    rows = await sql(database_url, "SELECT DISTINCT zedtoken FROM tenant_delivery")
    assert len(rows) == 1, "the whole request went as one write"


async def test_many_that_are_refused_for_the_same_cause_take_no_more_probes_than_one(
    parts: Parts, relaying: Relaying, spicedb_proxy: Proxy, database_url: str
) -> None:
    made = await tenant_in(parts, 4)

    def many(_: str) -> str:
        return f"""(SELECT jsonb_agg(jsonb_build_object('op', 'touch', 'tuple',
            '{object_of(made)}#' || (CASE i % 2 WHEN 0 THEN 'viewer' ELSE 'no_such_relation' END) || '@user:u-' || i))
            FROM generate_series(1, 500) AS i)"""

    await add_rows(database_url, made[0], many)
    async with relaying():
        await eventually(lambda: is_delivered(database_url, made[0].id), 20)
    assert len(await parked_rows(database_url)) == 250
    assert spicedb_proxy.seen(NEVER) <= 2 * 10 + 2


async def test_a_refused_delete_of_what_is_not_there_is_as_good_as_done(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    await add_rows(database_url, made[0], ops(("delete", nonsense(made))))
    await parts.role(made[1], "bob", Role.VIEWER)
    before = counted("pemba_parkings_total", reason="UNKNOWN_RELATION_OR_PERMISSION", effect="none")
    await (await seized(4)).run_once()
    assert await is_delivered(database_url, made[0].id)
    assert await stored(store, made[0].id) == await projected(database_url, made[0].id)
    assert await parked_rows(database_url) == []
    assert await delivery_of(database_url, made[0].id) == (None, None, False)
    assert counted("pemba_parkings_total", reason="UNKNOWN_RELATION_OR_PERMISSION", effect="none") == before + 1


class Refusing(SpiceDB):
    """A SpiceDB that takes no operation on this user's tuples."""

    user = "mallory"

    async def write(self, operations: Sequence[TupleOperation], **given: Any) -> str:
        if any(operation.tuple.subject.id == self.user for operation in operations):
            raise WriteFailed(WriteFailure.OPERATION, f"no {self.user}", "INVALID_SUBJECT_TYPE")
        return await super().write(operations, **given)


async def test_a_refused_delete_of_what_is_there_closes_the_tenant(
    parts: Parts, relaying: Relaying, store: SpiceDB, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    await parts.role(made[1], "mallory", Role.VIEWER)
    async with relaying():
        await require_truth(database_url, store, made[0].id)
    await parts.remove(made[1], "mallory")
    await parts.role(made[1], "bob", Role.VIEWER)
    async with relaying(Refusing):
        await eventually(lambda: is_delivered(database_url, made[0].id), 5)
    granted = f"{object_of(made)}#viewer@user:mallory"
    assert await parked_rows(database_url) == [(3, 3, "delete", granted, "restricts")]
    assert await delivery_of(database_url, made[0].id) == (3, 0, True)
    assert await stored(store, made[0].id) == await projected(database_url, made[0].id) | {Tuple.parse(granted)}


async def test_a_later_operation_on_the_tuple_ends_its_parking_in_the_same_batch_and_after_it(
    parts: Parts, seized: Seized, store: SpiceDB, database: Database, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    lane._parking._probe._spicedb = lane._spicedb = refusing = Refusing(store.channel, "")
    refusing.metadata = store.metadata
    await parts.role(made[1], "mallory", Role.VIEWER)
    await lane.run_once()
    assert [row[:3] for row in await parked_rows(database_url)] == [(2, 2, "touch")]
    await parts.role(made[1], "mallory", Role.MEMBER)
    await lane.run_once()
    tuples = {text.partition("#")[2] for _, _, _, text, _ in await parked_rows(database_url)}
    assert tuples == {"member@user:mallory"}, "the DELETE of the other was without effect"
    await parts.remove(made[1], "mallory")
    await lane.run_once()
    assert await parked_rows(database_url) == []
    assert await delivery_of(database_url, made[0].id) == (None, None, False)

    await parts.role(made[1], "mallory", Role.VIEWER)
    await lane.run_once()
    await parts.remove(made[1], "mallory")
    await parts.role(made[1], "mallory", Role.VIEWER)
    lane._spicedb = lane._parking._probe._spicedb = store
    await lane.run_once()
    assert await parked_rows(database_url) == []
    await require_truth(database_url, store, made[0].id)


async def test_an_operation_that_is_refused_again_stays_parked_from_its_first_row(
    parts: Parts, seized: Seized, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    for _ in range(2):
        await add_rows(database_url, made[0], touch(nonsense(made)))
        await lane.run_once()
    assert await parked_rows(database_url) == [(3, 2, "touch", nonsense(made), "grants_less")]
    assert (await delivery_of(database_url, made[0].id))[0] == 2


async def test_a_tuple_is_parked_once_whatever_its_expiration_and_a_delete_of_it_ends_that(
    parts: Parts, seized: Seized, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    plain = nonsense(made)
    ends, later = (f"{plain}[expiration:203{n}-01-01T00:00:00Z]" for n in (0, 1))
    for text, effect in ((ends, "grants_less"), (later, "grants_less"), (plain, "grants_less"), (ends, "grants_less")):
        await add_rows(database_url, made[0], touch(text))
        await lane.run_once()
        assert [(row[1], *row[3:]) for row in await parked_rows(database_url)] == [(2, text, effect)]
    await add_rows(database_url, made[0], ops(("delete", plain)))
    await lane.run_once()
    assert await parked_rows(database_url) == []


# -- no definite answer ----------------------------------------------------------------------------------------


async def test_an_outage_while_probing_parks_nothing_and_the_round_is_tried_again(
    parts: Parts, relaying: Relaying, store: SpiceDB, spicedb_proxy: Proxy, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    async with relaying(rpc_seconds=0.5, poll_max_seconds=0.1):
        await require_truth(database_url, store, made[0].id)
        for round_ in range(3):
            probe = spicedb_proxy.trap(NEVER)
            if not round_:
                await add_rows(database_url, made[0], touch(nonsense(made)))
            await probe.answered.wait()
            assert await parked_rows(database_url) == []
            assert await positions(database_url, made[0].id) == (2, 1)
            await spicedb_proxy.cut()
        await eventually(lambda: is_delivered(database_url, made[0].id), 20)
    assert len(await parked_rows(database_url)) == 1


@pytest.mark.parametrize("guarded", [True, False])
async def test_what_another_store_refuses_is_not_parked(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    await lane.run_once()
    await add_rows(database_url, made[0], touch(nonsense(made)))
    await parts.role(made[1], "bob", Role.VIEWER)
    found = lane._parking.refusals

    async def and_meanwhile_it_is_emptied(request: Sequence[Batch]) -> list[Refusal]:
        refusals = await found(request)
        mark = lane.fence.required()
        await store.write([TupleOperation(Operation.DELETE, mark)], metadata={}, timeout=5)
        return refusals

    monkeypatch.setattr(lane._parking, "refusals", and_meanwhile_it_is_emptied)
    if not guarded:
        real, looks = Fence.require_unchanged, iter([True])

        async def once(self: Fence) -> None:
            if next(looks, False):
                await real(self)

        monkeypatch.setattr(Fence, "require_unchanged", once)
    with pytest.raises((FenceInDoubt, WriteFailed)):
        await lane.run_once()
    assert bool(await parked_rows(database_url)) is not guarded


async def test_what_refuses_a_probe_without_operations_is_no_operations_fault(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    await lane.run_once()
    await parts.role(made[1], "bob", Role.VIEWER)

    async def refuse(*_: Any, **__: Any) -> str:
        raise WriteFailed(WriteFailure.OPERATION, "no", "INVALID_ARGUMENT")

    monkeypatch.setattr(store, "write", refuse)
    with pytest.raises(WriteFailed):
        await lane.run_once()
    assert await parked_rows(database_url) == []
    assert await positions(database_url, made[0].id) == (2, 1)


# -- crashes ---------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def dies(*_: Any, **__: Any) -> Any:
    raise Killed


Kill = Callable[[pytest.MonkeyPatch, Lane], None]


def before_the_parking(monkeypatch: pytest.MonkeyPatch, _: Lane) -> None:
    monkeypatch.setattr(Parking, "park_if_leased", dies)


def between_parking_and_write(monkeypatch: pytest.MonkeyPatch, lane: Lane) -> None:
    real, writes = lane._write, iter([True])

    async def second(*given: Any) -> str:
        return await (real(*given) if next(writes, False) else dies())

    monkeypatch.setattr(lane, "_write", second)


def between_write_and_record(monkeypatch: pytest.MonkeyPatch, _: Lane) -> None:
    monkeypatch.setattr(delivery, "mark_delivered_if_leased", dies)


@pytest.mark.parametrize("kill", [before_the_parking, between_parking_and_write, between_write_and_record])
async def test_whoever_takes_over_after_a_crash_comes_to_the_same(
    parts: Parts, seized: Seized, store: SpiceDB, database_url: str, kill: Kill
) -> None:
    made = await tenant_in(parts, 4)
    first = await seized(4)
    await first.run_once()
    await add_rows(database_url, made[0], touch(nonsense(made)))
    await parts.role(made[1], "mallory", Role.VIEWER)
    with pytest.MonkeyPatch.context() as patched:
        kill(patched, first)
        with pytest.raises(Killed):
            await first.run_once()
    was_parked = bool(await parked_rows(database_url))
    assert was_parked is (kill is not before_the_parking)
    assert await positions(database_url, made[0].id) == (3, 1)
    await parts.remove(made[1], "mallory")  # in the second batch, which covers the first
    await parts.role(made[1], "bob", Role.VIEWER)
    second = await seized(4)
    await second.run_once()
    assert await positions(database_url, made[0].id) == (5, 5)
    assert await stored(store, made[0].id) == await projected(database_url, made[0].id)
    assert await parked_rows(database_url) == [(2, 2, "touch", nonsense(made), "grants_less")]


async def test_whoever_takes_over_a_parked_operation_that_is_not_delivered_probes_no_more(
    parts: Parts, relaying: Relaying, seized: Seized, spicedb_proxy: Proxy, database_url: str
) -> None:
    made = await tenant_in(parts, 4)
    first = await seized(4)
    await first.run_once()
    await add_rows(database_url, made[0], touch(nonsense(made)))
    await parts.role(made[1], "bob", Role.VIEWER)
    with pytest.MonkeyPatch.context() as patched:
        between_parking_and_write(patched, first)
        with pytest.raises(Killed):
            await first.run_once()
    await as_owner(database_url, "outbox", "UPDATE relay_lease SET holder = NULL, lease_until = NULL")
    async with relaying():
        await eventually(lambda: is_delivered(database_url, made[0].id), 5)
    assert spicedb_proxy.seen(NEVER) == 0


@pytest.mark.parametrize("guarded", [True, False])
async def test_who_has_lost_the_shard_parks_nothing(
    parts: Parts,
    seized: Seized,
    database: Database,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    guarded: bool,
) -> None:
    made = await tenant_in(parts, 4)
    lane = await seized(4)
    await lane.run_once()
    await add_rows(database_url, made[0], touch(nonsense(made)))
    found = lane._parking.refusals

    async def and_loses_the_lease(request: Sequence[Batch]) -> list[Refusal]:
        refusals = await found(request)
        await take_over(database, 4)
        return refusals

    monkeypatch.setattr(lane._parking, "refusals", and_loses_the_lease)
    if not guarded:

        async def anyhow(*_: Any) -> int:
            return 10**6

        monkeypatch.setattr(delivery, "count_if_leased", anyhow)
    if guarded:
        with pytest.raises(LeaseLost):
            await lane.run_once()
    else:
        await lane.run_once()
    assert bool(await parked_rows(database_url)) is not guarded


class Moody(Refusing):
    """Refuses the tuples of whom it will, and changes its mind."""

    refuses: frozenset[str] = frozenset()

    async def write(self, operations: Sequence[TupleOperation], **given: Any) -> str:
        if any(operation.tuple.subject.id in self.refuses for operation in operations):
            raise WriteFailed(WriteFailure.OPERATION, "not these", "INVALID_SUBJECT_TYPE")
        return await SpiceDB.write(self, operations, **given)


async def change_something(parts: Parts, root: Workspace, dice: random.Random, users: Sequence[str]) -> None:
    for user in users:
        if dice.random() < 0.4:
            await parts.role(root, user, dice.choice([Role.VIEWER, Role.MEMBER]))
        elif dice.random() < 0.4:
            await parts.remove(root, user, allow_missing=True)


async def run_or_die(lane: Lane, dice: random.Random) -> None:
    with pytest.MonkeyPatch.context() as patched, suppress(Killed):
        if dice.random() < 0.3:
            dice.choice([before_the_parking, between_parking_and_write, between_write_and_record])(patched, lane)
        await lane.run_once()


@pytest.mark.parametrize(("seed", "guarded"), [(1, True), (2, True), (1, False)])
async def test_whatever_is_refused_whenever_nobody_is_left_with_more_than_the_records_say_in_an_open_tenant(
    parts: Parts,
    database: Database,
    store: SpiceDB,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    guarded: bool,
) -> None:
    if not guarded:

        async def never(*_: Any) -> bool:
            return False

        monkeypatch.setattr(left_out, "is_stored", never)
    dice, users = random.Random(seed), ("bob", "carol", "dave")
    moody = Moody(store.channel, "")
    moody.metadata = store.metadata
    tenant, root = await tenant_in(parts, 4)
    open_with_more = 0
    lane = None
    for _ in range(40):
        if lane is None or dice.random() < 0.1:  # another takes over
            lane = Lane(Fence(await take_over(database, 4), database, store, 5.0), database, moody, 5.0)
        moody.refuses = frozenset(user for user in users if dice.random() < 0.4)
        await change_something(parts, root, dice, users)
        await run_or_die(lane, dice)
        if not await is_delivered(database_url, tenant.id):
            lane = None
            continue
        more = await stored(store, tenant.id) - await projected(database_url, tenant.id)
        first, _, closed = await delivery_of(database_url, tenant.id)
        assert not more or first is not None or not guarded
        open_with_more += bool(more) and not closed
    assert bool(open_with_more) is not guarded
    moody.refuses = frozenset()
    notifier = Notifier(database)
    await Retries(database, notifier).everything(parts.system, None)
    await notifier.close()
    lane = Lane(Fence(await take_over(database, 4), database, store, 5.0), database, moody, 5.0)
    while await lane.run_once():
        pass
    assert await parked_rows(database_url) == []
    if guarded:
        await require_truth(database_url, store, tenant.id)
