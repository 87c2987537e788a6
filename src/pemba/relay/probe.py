"""Finds the operations of a refused request that SpiceDB refuses for their own sake, without writing anything.

A probe is a write of some of the operations that must match a mark which no relay ever writes.  SpiceDB looks at the
updates before it looks at preconditions, so what it would take answers that the precondition failed, and what it would
not take answers why.  To send halves for real would write a part of a batch, and a batch goes whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pemba.model import ObjectRef, SubjectRef, Tuple, TupleOperation
from pemba.relay.fence import OBJECT, relation_of
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure

NEVER = "never"
"""A fence's mark is two numbers: this one is nobody's."""

_OF_THE_SCHEMA = frozenset(
    {"UNKNOWN_DEFINITION", "UNKNOWN_RELATION_OR_PERMISSION", "INVALID_SUBJECT_TYPE", "CANNOT_UPDATE_PERMISSION"}
)
"""What refuses one operation for these reasons refuses all that differ from it in their ids alone."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An operation and what SpiceDB has against it."""

    operation: TupleOperation
    reason: str
    message: str


class Probe:
    """Probes of one shard.  Each raises WriteFailed where SpiceDB gives no definite answer: nothing is known then."""

    def __init__(self, spicedb: SpiceDB, shard: int, timeout: float) -> None:
        self._spicedb = spicedb
        self._never = Tuple(OBJECT, relation_of(shard), SubjectRef("mark", NEVER))
        self._timeout = timeout

    async def refused(self, operations: Sequence[TupleOperation]) -> list[Refused]:
        """Those that SpiceDB does not take as the schema is now.

        For k that differ in more than their ids it takes about 2 k log2(n) probes, and never more than 2 n + 1.
        """
        if (refusal := await self.refusal(())) is not None:
            raise refusal  # for no operation's sake
        search = _Search(self)
        await search.among(operations, is_refused=False)
        return search.found

    async def refusal(self, operations: Sequence[TupleOperation]) -> WriteFailed | None:
        """What SpiceDB has against these, None for nothing."""
        try:
            await self._spicedb.write(operations, metadata={}, timeout=self._timeout, must_match=(self._never,))
        except WriteFailed as error:
            if error.kind is WriteFailure.PRECONDITION:
                return None
            if error.kind is WriteFailure.OPERATION:
                return error
            raise
        raise AssertionError("a probe was written: SpiceDB holds a mark that no relay writes")


class _Search:
    """One halving, and what it has found so far."""

    def __init__(self, probe: Probe) -> None:
        self.found: list[Refused] = []
        self._probe = probe
        self._alike: dict[TupleOperation, Refused] = {}

    async def among(self, operations: Sequence[TupleOperation], *, is_refused: bool) -> None:
        """`is_refused`: they are known to hold one that is."""
        left = [operation for operation in operations if not self._is_alike(operation)]
        if not left:
            return
        if len(left) == 1 or len(left) < len(operations) or not is_refused:
            refusal = await self._probe.refusal(left)
            if refusal is None:
                return
            if len(left) == 1:
                self._note(Refused(left[0], refusal.cause, refusal.message))
                return
        half, before = len(left) // 2, len(self.found)
        await self.among(left[:half], is_refused=False)
        await self.among(left[half:], is_refused=len(self.found) == before)

    def _note(self, refused: Refused) -> None:
        self.found.append(refused)
        if refused.reason in _OF_THE_SCHEMA:
            self._alike[_without_ids(refused.operation)] = refused

    def _is_alike(self, operation: TupleOperation) -> bool:
        known = self._alike.get(_without_ids(operation))
        if known is not None:
            self.found.append(replace(known, operation=operation))
        return known is not None


def _without_ids(operation: TupleOperation) -> TupleOperation:
    """All of it that a schema looks at; a wildcard is no id."""
    stored = operation.tuple
    subject = "*" if stored.subject.id == "*" else ""
    return replace(
        operation,
        tuple=replace(
            stored,
            resource=ObjectRef(stored.resource.type, ""),
            subject=SubjectRef(stored.subject.type, subject, stored.subject.relation),
        ),
    )
