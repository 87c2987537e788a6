"""The fence of a shard: the tuple in SpiceDB that every write of its holder must find there.

`fence:pemba#shard_07@mark:<epoch>/<n>` names a lease by its epoch, and `n` counts the rotations of the shard over all
epochs, by one each.  PostgreSQL commits `n` before SpiceDB gets it, and that it landed before anything is written under
it: so a store that lost nothing has the number that landed last or the one after it, and whatever differs from that
says who lost something (`judge`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pemba.errors import PembaError, Reason, Rejected, Unavailable
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb.client import CheckQuestion, CheckResult, Decision, FullyConsistent, SpiceDB
from pemba.storage import leases
from pemba.storage.database import Database
from pemba.storage.leases import Lease, LeaseLost, LeaseRow
from pemba.storage.lives import Numbers
from pemba.telemetry import FENCE_ROTATIONS

OBJECT = ObjectRef("fence", "pemba")
INSTALLATION = "installation"
"""The relation of the tuple that names the installation whose store it is."""
BUSY_SECONDS = 1.0
IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a fence says."""

    epoch: int
    n: int

    def on(self, shard: int) -> Tuple:
        return Tuple(OBJECT, relation_of(shard), SubjectRef("mark", f"{self.epoch}/{self.n}"))

    @classmethod
    def of(cls, stored: Tuple) -> Mark:
        """Raises Rejected: only the relay writes fences, and never one that does not parse."""
        try:
            epoch, n = map(int, stored.subject.id.split("/"))
        except ValueError as error:
            raise Rejected(f"SpiceDB holds a fence that no relay wrote: {stored}; delete it") from error
        return cls(epoch, n)


class Verdict(StrEnum):
    """What the fence of a shard says to the one who holds the shard."""

    WELL = "well"
    ZOMBIE = "zombie"
    """Another relay has the shard: stop."""

    STORE_LOST = "store_lost"
    """SpiceDB lost writes: it was emptied, or restored to an earlier state."""

    DATABASE_LOST = "database_lost"
    """PostgreSQL lost commits: SpiceDB has a fence that PostgreSQL knows nothing of."""


class FenceFault(Exception):
    """Nothing may be written in the shard, for this verdict; never WELL."""

    def __init__(self, verdict: Verdict, found: Mark | None, row: LeaseRow) -> None:
        super().__init__(f"{verdict}: SpiceDB has {found}, PostgreSQL {row}")
        self.verdict = verdict
        self.found = found
        self.row = row


class FenceInDoubt(Exception):
    """It is not certain what the fence says: it must be rotated before the next write."""


def relation_of(shard: int) -> str:
    """One for each shard: marks under one relation would collide in SpiceDB's serializable transactions."""
    return f"shard_{shard:02d}"


def judge(found: Mark | None, row: LeaseRow, *, epoch: int, tried: int, is_defined: bool) -> Verdict:
    """What a fence says that was read before `row` was.

    `epoch` is our lease's, `tried` the highest `n` that we have sent in this lease (-1: none); `is_defined`: SpiceDB's
    schema knows of fences.
    """
    if row.epoch < epoch or (found is not None and _is_beyond(found, row, epoch, tried)):
        return Verdict.DATABASE_LOST
    if not row.is_ours:
        return Verdict.ZOMBIE
    n = -1 if found is None else found.n
    return Verdict.STORE_LOST if n < row.landed or (row.has_schema and not is_defined) else Verdict.WELL


def _is_beyond(found: Mark, row: LeaseRow, epoch: int, tried: int) -> bool:
    """Whether PostgreSQL never committed it, or gave our epoch to another before it forgot that."""
    return found.epoch > row.epoch or found.n > row.n or (found.epoch == epoch and found.n > tried)


def judge_all(found: Mapping[int, Mark], rows: Mapping[int, Numbers]) -> Verdict:
    """What the fences of all shards say, read while nobody could commit a number: WELL, STORE_LOST, DATABASE_LOST."""
    if any(mark.epoch > rows[shard].epoch or mark.n > rows[shard].n for shard, mark in found.items()):
        return Verdict.DATABASE_LOST
    behind = any((found[shard].n if shard in found else -1) < row.landed for shard, row in rows.items())
    return Verdict.STORE_LOST if behind else Verdict.WELL


async def read(spicedb: SpiceDB, timeout: float, relation: str = "") -> dict[str, Mark] | None:
    """The fences that SpiceDB holds now, by relation: all, or one.  None where its schema knows of none.

    It passes over all that were there in the time for which SpiceDB keeps revisions.
    Raises Unavailable, Timeout, Rejected.
    """
    stored = await _read(spicedb, timeout, relation)
    return None if stored is None else {t.relation: Mark.of(t) for t in stored if t.relation != INSTALLATION}


async def read_installation(spicedb: SpiceDB, timeout: float) -> str | None:
    """Whose store it is; None where nobody has written here yet.  Raises as `read`."""
    stored = await _read(spicedb, timeout, INSTALLATION)
    return stored[0].subject.id if stored else None


def installation_tuple(installation_id: str) -> Tuple:
    """What says whose store it is."""
    return Tuple(OBJECT, INSTALLATION, SubjectRef("mark", installation_id))


async def _read(spicedb: SpiceDB, timeout: float, relation: str) -> list[Tuple] | None:
    try:
        return [t async for t in spicedb.read_tuples(OBJECT.type, FullyConsistent(), timeout, relation=relation)]
    except Unavailable as error:
        if error.reason is Reason.SCHEMA_MISMATCH:
            return None
        raise


async def there(spicedb: SpiceDB, marks: Mapping[int, Mark], timeout: float) -> set[int]:
    """The shards whose mark SpiceDB holds now: asked for each by itself, so that the marks of before cost nothing.

    Raises Unavailable, Timeout, Rejected.
    """
    stored = [mark.on(shard) for shard, mark in marks.items()]
    questions = [CheckQuestion(each.resource, each.relation, each.subject) for each in stored]
    try:
        results = (await spicedb.check_bulk(questions, FullyConsistent(), timeout)).results
    except Unavailable as error:
        if error.reason is Reason.SCHEMA_MISMATCH:
            return set()
        raise
    return {shard for shard, result in zip(marks, results, strict=True) if _is_there(result)}


def _is_there(result: CheckResult | PembaError) -> bool:
    if isinstance(result, CheckResult):
        return result.decision is Decision.ALLOWED
    if isinstance(result, Unavailable) and result.reason is Reason.SCHEMA_MISMATCH:
        return False
    raise result


class Fence:
    """One shard's, as the holder of `lease` keeps it; used by one task."""

    def __init__(
        self,
        lease: Lease,
        database: Database,
        spicedb: SpiceDB,
        rpc_seconds: float,
        is_certain: Callable[[], bool] = lambda: True,
    ) -> None:
        self.lease = lease
        self.mark: Mark | None = None
        """What the store holds, as far as we were told; None while that is in doubt."""
        self._relation = relation_of(lease.shard)
        self._database = database
        self._spicedb = spicedb
        self._rpc_seconds = rpc_seconds
        self._is_certain = is_certain
        self._tried = -1
        self._sent: Mark | None = None
        self._schema_number: int | None = None
        self._is_wanted = False
        """By a write or a schema apply since the last rotation."""
        self._rotated = 0.0

    def doubt(self) -> None:
        """Rotate before the next write."""
        self.mark = None

    def required(self) -> Tuple:
        """What a write that is sent now must match; such a write has the fence rotated within a second.

        Raises LeaseLost, FenceInDoubt.
        """
        self._require_certain()
        if self.mark is None:
            raise FenceInDoubt
        self._is_wanted = True
        return self.mark.on(self.lease.shard)

    def saw_schema(self, number: int) -> None:
        """Such is the schema's number now: another one than before has the fence rotated within a second."""
        self._is_wanted |= self._schema_number not in (None, number)
        self._schema_number = number

    def is_due(self) -> bool:
        """Whether `keep` would rotate it."""
        limit = BUSY_SECONDS if self._is_wanted else IDLE_SECONDS
        return self.mark is None or asyncio.get_running_loop().time() - self._rotated >= limit

    async def keep(self) -> None:
        """Rotate it where it is in doubt, and where it is time.

        Raises FenceFault, LeaseLost, and what reading, writing and committing raise; it is in doubt then.
        """
        if self.is_due():
            await self._rotate()

    async def require_unchanged(self) -> None:
        """Raises FenceInDoubt where SpiceDB holds another value than we were told."""
        if self.mark is None or await self._read() != {self._relation: self.mark}:
            self.doubt()
            raise FenceInDoubt

    async def _rotate(self) -> None:
        self.mark = None
        self._is_wanted, self._rotated = False, asyncio.get_running_loop().time()
        try:
            await self._move(await self._read())
        except FenceFault as fault:
            if fault.verdict is not Verdict.STORE_LOST:
                raise
            # SpiceDB gives simultaneous requests one head revision, that of the first: what is fully consistent can be
            # older than what was acknowledged before it was asked.  A second look begins after such a first has ended.
            await self._move(await self._read())
        assert self._sent is not None
        mark, self._sent = self._sent, None
        FENCE_ROTATIONS.inc()
        # Before anything is written under it: from now on a store that lacks it has lost writes.
        async with self._database.begin_relay() as tx:
            await leases.mark_landed(tx, self.lease, mark.n)
        self.mark = mark

    async def _move(self, marks: dict[str, Mark] | None) -> None:
        found = None if marks is None else marks.get(self._relation)
        if found is None or found != self._sent:  # else the rotation that we have no answer to has landed
            self._sent = await self._commit_next(found, is_defined=marks is not None)
            await self._write(found, self._sent)

    async def _read(self) -> dict[str, Mark] | None:
        return await read(self._spicedb, self._rpc_seconds, self._relation)

    async def _commit_next(self, found: Mark | None, *, is_defined: bool) -> Mark:
        async with self._database.begin_relay() as tx:
            row = await leases.lock(tx, self.lease)
            verdict = judge(found, row, epoch=self.lease.epoch, tried=self._tried, is_defined=is_defined)
            if verdict is not Verdict.WELL:
                raise FenceFault(verdict, found, row)
            n = 0 if found is None else found.n + 1
            if n > row.n:
                await leases.raise_number(tx, self.lease, n)
        return Mark(self.lease.epoch, n)

    async def _write(self, found: Mark | None, target: Mark) -> None:
        self._require_certain()
        self._tried = target.n
        touch = TupleOperation(Operation.TOUCH, target.on(self.lease.shard))
        if found is None:
            await self._send([touch], must_be_empty=((OBJECT, self._relation),))
        else:
            stored = found.on(self.lease.shard)
            await self._send([TupleOperation(Operation.DELETE, stored), touch], must_match=(stored,))

    async def _send(self, operations: list[TupleOperation], **preconditions: Any) -> None:
        await self._spicedb.write(operations, metadata={}, timeout=self._rpc_seconds, **preconditions)

    def _require_certain(self) -> None:
        if not self._is_certain():
            raise LeaseLost
