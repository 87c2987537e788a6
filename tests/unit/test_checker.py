"""The checker of records beside SpiceDB's history finds what it is there for: shown on histories that never were."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pemba.model import Operation, TenantId, Tuple, TupleOperation
from tests.crash.faults.checker import Delivery, Row, Write, resurrections
from tests.crash.faults.revisions import Revision, revision_of

TENANT = TenantId("ten_01h455vb4pex5vsknk084sn02q")
OTHER = TenantId("ten_01h455vb4pex5vsknk084sn02r")


def viewer(user: str, tenant: str = TENANT) -> Tuple:
    return Tuple.parse(f"workspace:{tenant}/ws#viewer@user:{user}")


def row(seq: int, *changes: str, tenant: TenantId = TENANT, begun_at: float = 0.0) -> Row:
    """`+bob` gives bob a role, `-bob` takes it."""
    kinds = {"+": Operation.TOUCH, "-": Operation.DELETE}
    operations = tuple(TupleOperation(kinds[c[0]], viewer(c[1:], tenant)) for c in changes)
    return Row(tenant, seq, operations, begun_at)


def write(txid: int, *changes: str, tenant: str = TENANT, seen_at: float = 1.0) -> Write:
    return Write(
        Revision(txid, txid, txid + 1),
        frozenset(viewer(c[1:], tenant) for c in changes if c[0] == "+"),
        frozenset(viewer(c[1:], tenant) for c in changes if c[0] == "-"),
        seen_at,
    )


def delivered(seq: int, txid: int, tenant: TenantId = TENANT) -> Delivery:
    return Delivery(tenant, seq, Revision(txid, txid, txid + 1))


GRANTED_AND_REVOKED = [row(1, "+bob"), row(2, "-bob")]


def found(rows: Sequence[Row], deliveries: Sequence[Delivery], writes: Sequence[Write]) -> list[tuple[str, int, int]]:
    return [(each.tuple.subject.id, each.delivered_seq, each.txid) for each in resurrections(rows, deliveries, writes)]


def test_a_history_in_order_is_well() -> None:
    writes = [write(11, "+bob"), write(12, "-bob")]
    assert found(GRANTED_AND_REVOKED, [delivered(1, 11), delivered(2, 12)], writes) == []


def test_what_was_revoked_and_delivered_and_is_back_is_found() -> None:
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob")]
    assert found(GRANTED_AND_REVOKED, [delivered(1, 11), delivered(2, 12)], writes) == [("bob", 2, 13)]


def test_what_is_back_for_one_revision_only_is_found() -> None:
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob"), write(14, "-bob")]
    assert found(GRANTED_AND_REVOKED, [delivered(2, 12)], writes) == [("bob", 2, 13)]


def test_what_is_back_before_the_revoke_was_recorded_as_delivered_is_only_late() -> None:
    """A write is tried again until its record: what it repeats was not revoked and delivered."""
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob"), write(14, "-bob")]
    assert found(GRANTED_AND_REVOKED, [delivered(2, 14)], writes) == []


def test_a_revoke_that_is_recorded_as_delivered_and_never_was_is_found() -> None:
    assert found(GRANTED_AND_REVOKED, [delivered(2, 12)], [write(11, "+bob")]) == [("bob", 2, 0)]


def test_a_revoke_that_is_recorded_too_early_is_found_although_it_comes() -> None:
    writes = [write(11, "+bob"), write(13, "+carol"), write(14, "-bob")]
    rows = [*GRANTED_AND_REVOKED, row(3, "+carol")]
    assert found(rows, [delivered(2, 12)], writes) == [("bob", 2, 13)]


def test_what_was_granted_again_may_be_there() -> None:
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob")]
    rows = [*GRANTED_AND_REVOKED, row(3, "+bob")]
    assert found(rows, [delivered(2, 12), delivered(3, 13)], writes) == []


def test_a_grant_of_later_does_not_explain_what_was_there_before_it_began() -> None:
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob", seen_at=2.0), write(14, "-bob")]
    rows = [*GRANTED_AND_REVOKED, row(3, "+bob", begun_at=3.0)]
    assert found(rows, [delivered(2, 12)], writes) == [("bob", 2, 13)]


def test_what_the_record_never_granted_is_found() -> None:
    assert found([row(1)], [], [write(11, "+mallory")]) == [("mallory", 0, 11)]


def test_what_is_missing_is_nobody_s_gain() -> None:
    writes = [write(11, "+bob"), write(12, "-bob")]
    assert found([row(1, "+bob")], [delivered(1, 11)], writes) == []


def test_what_was_emptied_and_repaired_is_well() -> None:
    writes = [write(11, "+bob"), write(12, "-bob"), write(13, "+bob")]
    assert found([row(1, "+bob"), row(2, "+bob")], [delivered(1, 11), delivered(2, 13)], writes) == []


def test_a_write_of_two_tenants_is_held_against_each() -> None:
    both = Write(Revision(11, 11, 12), frozenset({viewer("bob"), viewer("eve", OTHER)}), frozenset(), 1.0)
    rows = [row(1, "+bob"), row(1, tenant=OTHER)]
    assert found(rows, [], [both]) == [("eve", 0, 11)]


def test_a_write_that_ran_beside_the_delivered_one_is_not_after_it() -> None:
    """The order of Watch is not the order of what a snapshot sees."""
    beside = Write(Revision(12, 11, 13), frozenset({viewer("bob")}), frozenset(), 1.0)
    last = Write(Revision(11, 11, 12), frozenset(), frozenset({viewer("bob")}), 1.0)
    late = Delivery(TENANT, 2, Revision(11, 11, 13, frozenset({12})))
    assert found(GRANTED_AND_REVOKED, [late], [beside, last]) == []
    assert found(GRANTED_AND_REVOKED, [late], [last, beside]) == [("bob", 2, 12)]


def test_a_record_with_a_gap_is_refused() -> None:
    with pytest.raises(AssertionError, match="gap"):
        found([row(1, "+bob"), row(3, "-bob")], [], [write(11, "+bob")])


def test_a_revision_is_read_from_a_zedtoken() -> None:
    token = "GiQKGENOY0dJTllHS0lEQzhPN2RxNGIxR0E9PRIIM2U5ZjNmN2E="
    assert revision_of(token) == Revision(txid=854, xmin=855, xmax=855)
    assert revision_of(token).sees(854)
    assert not revision_of(token).sees(855)
