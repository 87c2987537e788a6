"""Probes find exactly what is refused, whatever it is, in a bounded number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.relay.probe import Probe
from pemba.spicedb.errors import WriteFailed, WriteFailure


def touch(n: int, relation: str = "viewer") -> TupleOperation:
    return TupleOperation(
        Operation.TOUCH, Tuple(ObjectRef("workspace", f"t/{n}"), relation, SubjectRef("user", f"u{n}"))
    )


class Answers:
    """As SpiceDB does: updates before preconditions."""

    def __init__(self, refused: set[TupleOperation], cause: str = "INVALID_ARGUMENT", outage_at: int = 0) -> None:
        self.probes = 0
        self._refused = refused
        self._cause = cause
        self._outage_at = outage_at

    async def write(self, operations: Sequence[TupleOperation], *, must_match: Sequence[Tuple], **_: Any) -> str:
        self.probes += 1
        assert [str(t) for t in must_match] == ["fence:pemba#shard_03@mark:never"]
        if self.probes == self._outage_at:
            raise WriteFailed(WriteFailure.UNCERTAIN, "away")
        if self._refused & set(operations):
            raise WriteFailed(WriteFailure.OPERATION, "no", self._cause)
        raise WriteFailed(WriteFailure.PRECONDITION, "unable to satisfy")


def probe(answers: Answers) -> Probe:
    return Probe(answers, 3, 1.0)  # type: ignore[arg-type]  # it only writes


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
async def test_exactly_what_is_refused_is_found_in_a_bounded_number_of_probes(case: tuple[int, set[int]]) -> None:
    size, bad = case
    answers = Answers({touch(n) for n in bad})
    found = await probe(answers).refused([touch(n) for n in range(size)])
    assert {refused.operation for refused in found} == {touch(n) for n in bad}
    assert len(found) == len(bad)
    assert answers.probes <= min(2 * size, 2 * len(bad) * math.ceil(math.log2(size) or 1)) + 2


@given(st.lists(st.booleans(), min_size=1, max_size=300))
async def test_what_differs_in_its_ids_alone_is_refused_alike(refused: list[bool]) -> None:
    operations = [touch(n, "unknown" if bad else "viewer") for n, bad in enumerate(refused)]
    bad = {operation for operation in operations if operation.tuple.relation == "unknown"}
    answers = Answers(bad, "UNKNOWN_RELATION_OR_PERMISSION")
    found = await probe(answers).refused(operations)
    assert {each.operation for each in found} == bad
    assert len(found) == len(bad)
    assert answers.probes <= 2 * math.ceil(math.log2(len(operations))) + 4


@pytest.mark.parametrize("outage_at", range(1, 9))
async def test_an_outage_at_any_probe_ends_the_search(outage_at: int) -> None:
    answers = Answers({touch(n) for n in (3, 17)}, outage_at=outage_at)
    with pytest.raises(WriteFailed) as failed:
        await probe(answers).refused([touch(n) for n in range(32)])
    assert failed.value.kind is WriteFailure.UNCERTAIN


async def test_a_write_that_a_probe_became_is_a_defect() -> None:
    class Writes:
        async def write(self, *_: Any, **__: Any) -> str:
            return "zedtoken"

    with pytest.raises(AssertionError, match="a mark that no relay writes"):
        await probe(Writes()).refused([touch(1)])  # type: ignore[arg-type]
