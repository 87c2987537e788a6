"""What a fence says, case by case."""

import pytest

from pemba.errors import Rejected
from pemba.model import SHARDS, Tuple
from pemba.relay.fence import Mark, Verdict, judge
from pemba.relay.lease import share
from pemba.storage.leases import LeaseRow
from pemba.storage.wakeup import Replicas

WELL, ZOMBIE, STORE_LOST, DATABASE_LOST = Verdict


def row(epoch: int, n: int, landed: int, *, ours: bool = True, schema: bool = True) -> LeaseRow:
    return LeaseRow(epoch, n, landed, ours, schema)


@pytest.mark.parametrize(
    ("found", "row_", "verdict"),
    [
        (Mark(4, 10), row(5, 10, 9), WELL),  # taken over, nothing rotated yet
        (Mark(4, 9), row(5, 10, 9), WELL),  # the one before us committed its last number and got no further
        (Mark(3, 10), row(5, 10, 9), WELL),  # epoch 4 died without a rotation
        (Mark(4, 8), row(5, 10, 9), STORE_LOST),
        (None, row(5, 10, 9), STORE_LOST),
        (Mark(6, 11), row(6, 11, 9, ours=False), ZOMBIE),
        (Mark(4, 10), row(6, 10, 9, ours=False), ZOMBIE),  # taken over, and not rotated yet
        (Mark(4, 10), row(5, 10, 9, ours=False), ZOMBIE),  # ran out
        (Mark(4, 11), row(5, 10, 9), DATABASE_LOST),
        (Mark(6, 10), row(5, 10, 9), DATABASE_LOST),
        (Mark(6, 11), row(5, 10, 9, ours=False), DATABASE_LOST),
        (Mark(5, 10), row(5, 10, 9), DATABASE_LOST),  # our epoch, and not written by us: it was given out twice
        (Mark(4, 10), row(4, 10, 9), DATABASE_LOST),  # the row is older than our lease
    ],
)
def test_at_a_takeover_of_number_ten(found: Mark | None, row_: LeaseRow, verdict: Verdict) -> None:
    assert judge(found, row_, epoch=5, tried=-1, is_defined=True) is verdict


@pytest.mark.parametrize(
    ("found", "n", "verdict"),
    [
        (Mark(5, 20), 20, WELL),
        (Mark(5, 20), 21, WELL),  # the next number is committed, its rotation on its way
        (Mark(5, 19), 20, STORE_LOST),  # we were told that 20 landed
        (Mark(5, 21), 21, WELL),  # sent, and landed without an answer
        (Mark(5, 22), 22, DATABASE_LOST),  # in our epoch, and never sent
        (Mark(5, 20), 19, DATABASE_LOST),
    ],
)
def test_while_the_lease_lasts(found: Mark, n: int, verdict: Verdict) -> None:
    assert judge(found, row(5, n, 20), epoch=5, tried=21, is_defined=True) is verdict


@pytest.mark.parametrize(
    ("n", "is_defined", "has_schema", "verdict"),
    [
        (-1, True, True, WELL),  # the first of this store
        (-1, True, False, WELL),
        (-1, False, False, WELL),  # no schema was ever applied
        (-1, False, True, STORE_LOST),
        (0, False, False, STORE_LOST),
        (0, True, True, STORE_LOST),
    ],
)
def test_no_fence(n: int, is_defined: bool, has_schema: bool, verdict: Verdict) -> None:
    found = judge(None, row(1, max(n, 0), n, schema=has_schema), epoch=1, tried=-1, is_defined=is_defined)
    assert found is verdict


def test_a_mark_is_the_tuple_that_it_was_read_from() -> None:
    stored = Tuple.parse("fence:pemba#shard_07@mark:12/345")
    assert Mark.of(stored) == Mark(12, 345)
    assert Mark(12, 345).on(7) == stored


@pytest.mark.parametrize("subject", ["12", "12/x", "1/2/3"])
def test_a_mark_that_no_relay_wrote_is_refused(subject: str) -> None:
    with pytest.raises(Rejected, match="no relay wrote"):
        Mark.of(Tuple.parse(f"fence:pemba#shard_07@mark:{subject}"))


@pytest.mark.parametrize("count", range(1, 20))
def test_shares_add_up_to_all_shards_and_differ_by_one_at_most(count: int) -> None:
    shares = [share(Replicas(count, rank)) for rank in range(count)]
    assert sum(shares) == SHARDS
    assert max(shares) - min(shares) <= 1
