"""Batches are pure functions of what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemba.errors import PreconditionFailed, Reason
from pemba.model import Effect, ObjectRef, Operation, Seq, SubjectRef, TenantId, Tuple, TupleOperation
from pemba.relay.batches import batch, first_missing
from pemba.storage import outbox
from pemba.storage.outbox import OutboxRow
from pemba.storage.parked import Refusal

TENANT = TenantId("ten_01h455vb4pex5vsknk084sn02q")


def operation(kind: Operation, n: int) -> TupleOperation:
    return TupleOperation(kind, Tuple(ObjectRef("workspace", f"t/{n}"), "owner", SubjectRef("user", "alice")))


def row(seq: int, operations: Sequence[TupleOperation] = ()) -> OutboxRow:
    return OutboxRow(Seq(seq), tuple(operations), {}, 0.0)


operations = st.builds(operation, st.sampled_from(Operation), st.integers(0, 5))
rows = st.lists(st.lists(operations, max_size=5), min_size=1, max_size=8).map(
    lambda found: [row(i + 1, ops) for i, ops in enumerate(found)]
)


def apply(held: set[Tuple], done: Sequence[TupleOperation]) -> set[Tuple]:
    for one in done:
        (held.add if one.operation is Operation.TOUCH else held.discard)(one.tuple)
    return held


@given(rows)
def test_a_batch_comes_to_what_its_rows_come_to_one_after_another(found: list[OutboxRow]) -> None:
    collapsed = batch(TENANT, found).operations
    assert apply(set(), collapsed) == apply(set(), [o for r in found for o in r.operations])
    assert len({o.tuple for o in collapsed}) == len(collapsed)


def test_a_tuple_is_one_whatever_its_expiration() -> None:
    """SpiceDB refuses two operations on it in one write."""
    plain = operation(Operation.TOUCH, 1).tuple
    ends = replace(plain, expiration=datetime(2027, 1, 1, tzinfo=UTC))
    touched, deleted = TupleOperation(Operation.TOUCH, ends), TupleOperation(Operation.DELETE, plain)
    for first, last in ((touched, deleted), (deleted, touched), (TupleOperation(Operation.TOUCH, plain), touched)):
        assert batch(TENANT, [row(1, [first]), row(2, [last])]).operations == (last,)


@given(rows, st.data())
def test_a_retry_with_more_rows_undoes_nothing_of_what_a_lost_request_did(
    found: list[OutboxRow], data: st.DataObject
) -> None:
    landed = batch(TENANT, found[: data.draw(st.integers(1, len(found)))]).operations
    retried = batch(TENANT, found).operations
    assert apply(apply(set(), landed), retried) == apply(set(), retried)


def test_grant_revoke_grant_in_one_batch_is_one_operation_and_the_last() -> None:
    grant, revoke = operation(Operation.TOUCH, 1), operation(Operation.DELETE, 1)
    assert batch(TENANT, [row(1, [grant]), row(2, [revoke]), row(3, [grant])]).operations == (grant,)


def refusal(seq: int, refused: TupleOperation, effect: Effect = Effect.GRANTS_LESS) -> Refusal:
    return Refusal(TENANT, Seq(seq), refused, effect, "UNKNOWN_DEFINITION", "no")


@given(rows, st.data())
def test_what_is_parked_changes_nothing_of_the_other_tuples(found: list[OutboxRow], data: st.DataObject) -> None:
    whole = batch(TENANT, found)
    refused = data.draw(st.sets(st.sampled_from(whole.operations))) if whole.operations else set()
    less = whole.without([refusal(seq, o) for o, seq in whole.rows_of(refused).items()])
    assert set(less.operations) == set(whole.operations) - refused
    assert set(less.ended) == {o.tuple for o in whole.operations} - {o.tuple for o in refused}
    assert less.last_seq == whole.last_seq


def test_a_later_operation_on_a_parked_tuple_goes() -> None:
    grant, revoke = operation(Operation.TOUCH, 1), operation(Operation.DELETE, 1)
    for later in ([revoke], [revoke, grant]):
        found = [row(1, [grant]), *(row(n, [o]) for n, o in enumerate(later, start=2))]
        kept = batch(TENANT, found).without([refusal(1, grant)])
        assert kept.operations == (later[-1],)
        assert kept.ended == [grant.tuple]


def test_a_plain_delete_stands_where_a_grant_with_conditions_was_refused() -> None:
    grant, other = operation(Operation.TOUCH, 1), operation(Operation.TOUCH, 2)
    kept = batch(TENANT, [row(1, [grant, other])]).without([refusal(1, grant, Effect.WITHDRAWN)])
    assert set(kept.operations) == {operation(Operation.DELETE, 1), other}
    assert kept.ended == [other.tuple]


def test_what_is_left_out_without_effect_is_as_it_should_be() -> None:
    revoke = operation(Operation.DELETE, 1)
    kept = batch(TENANT, [row(1, [revoke])]).without([refusal(1, revoke, Effect.NONE)])
    assert (kept.operations, kept.ended) == ((), [revoke.tuple])


def test_a_gap_is_found_and_so_is_nothing_at_all() -> None:
    assert first_missing(Seq(4), [row(5), row(6)]) is None
    assert first_missing(Seq(4), [row(6)]) == 5
    assert first_missing(Seq(4), [row(5), row(7)]) == 6
    assert first_missing(Seq(4), []) == 5


def test_a_large_change_is_several_rows_with_its_deletes_first() -> None:
    change = [operation(Operation.TOUCH, n) for n in range(600)] + [operation(Operation.DELETE, n) for n in range(600)]
    split = outbox.split(change)
    assert [len(part) for part in split] == [500, 500, 200]
    flat = [o.operation for part in split for o in part]
    assert flat == [Operation.DELETE] * 600 + [Operation.TOUCH] * 600


def test_a_change_beyond_the_bound_is_refused_and_says_how_to_split_it() -> None:
    one = operation(Operation.TOUCH, 1)
    with pytest.raises(PreconditionFailed, match="in parts") as refused:
        outbox.split([one] * 50_001)
    assert refused.value.reason is Reason.CHANGE_TOO_LARGE


def test_a_change_without_operations_is_one_empty_row() -> None:
    assert outbox.split([]) == [[]]
