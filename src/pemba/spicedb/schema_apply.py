"""Applying the schema: lock, read, compare, write, and the applied version kept in PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import structlog

from pemba.errors import PembaError, PreconditionFailed, Reason
from pemba.spicedb import schema
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.errors import WriteFailed, WriteFailure
from pemba.spicedb.schema import SchemaChange
from pemba.telemetry import Event

log = structlog.get_logger()


class SchemaVersion(Protocol):
    """A version that was applied."""

    @property
    def digest(self) -> str: ...
    @property
    def text(self) -> str: ...


class SchemaLedger(Protocol):
    """What remembers applies, each step committed before the next begins; `number` is odd while one is under way."""

    def locked(self) -> AbstractAsyncContextManager[None]: ...
    async def begin(self, digest: str, text: str) -> int: ...
    async def finish(self, number: int, zedtoken: str) -> None: ...
    async def abandon(self, number: int, why: str) -> None: ...
    async def applied(self) -> SchemaVersion | None: ...
    async def is_settled(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """`changes` is empty where SpiceDB had it all; `written` tells whether anything was done."""

    written: bool
    digest: str
    changes: tuple[SchemaChange, ...]


async def apply(spicedb: SpiceDB, ledger: SchemaLedger, text: str) -> Applied:
    """Make `text` the schema, and remember that it is.

    An apply that died between its steps is healed by the next one.  Raises PreconditionFailed where another apply is
    under way, where a definition would be dropped, or where SpiceDB refuses; Unavailable, WriteFailed.
    """
    wanted = schema.digest(text)
    async with ledger.locked():
        changes = tuple(await schema.changes(spicedb, text))
        _require_nothing_dropped(changes)
        remembered = await ledger.applied()
        in_force = remembered is not None and remembered.digest == wanted
        if not changes and in_force and await ledger.is_settled():
            return Applied(False, wanted, ())
        await _write(spicedb, ledger, text)
    log.info(Event.SCHEMA_APPLIED, digest=wanted, changes=[str(change) for change in changes])
    return Applied(True, wanted, changes)


async def restore(spicedb: SpiceDB, ledger: SchemaLedger) -> bool:
    """Where SpiceDB lost a part of the schema that was applied last: write it again; whether it was so.

    What SpiceDB has beyond it stays.  Raises as `apply`.
    """
    if not (await _lost(spicedb, ledger))[1]:  # without the lock, which would stand in the way of an apply
        return False
    async with ledger.locked():
        remembered, changes = await _lost(spicedb, ledger)
        if remembered is None or not changes:
            return False
        _require_nothing_dropped(changes)
        await _write(spicedb, ledger, remembered.text)
    log.warning(Event.SCHEMA_RESTORED, digest=remembered.digest, lost=[c.name for c in changes if c.adds])
    return True


async def _lost(spicedb: SpiceDB, ledger: SchemaLedger) -> tuple[SchemaVersion | None, tuple[SchemaChange, ...]]:
    """What was applied last, and what writing it would change; nothing where SpiceDB lacks no part of it."""
    remembered = await ledger.applied()
    if remembered is None:
        return None, ()
    changes = tuple(await schema.changes(spicedb, remembered.text))
    return remembered, changes if any(change.adds for change in changes) else ()


async def _write(spicedb: SpiceDB, ledger: SchemaLedger, text: str) -> None:
    number = await ledger.begin(schema.digest(text), text)
    try:
        zedtoken = await schema.write(spicedb, text)
    except PembaError as error:
        if not _may_have_landed(error):
            await ledger.abandon(number, error.message)
        raise
    await ledger.finish(number, zedtoken)


def _may_have_landed(error: PembaError) -> bool:
    """Then the number stays odd until the next apply has looked."""
    return isinstance(error, WriteFailed) and error.kind is WriteFailure.UNCERTAIN


_DROPS = ("definition_removed", "caveat_removed", "relation_removed", "relation_subject_type_removed")


def _require_nothing_dropped(changes: tuple[SchemaChange, ...]) -> None:
    """What this build does not know is somebody's: a newer build's, or an application's.

    Rows that are not delivered yet may name it too; without it they would hold up their tenants.
    """
    dropped = [change.name for change in changes if change.kind in _DROPS]
    if dropped:
        raise PreconditionFailed(
            Reason.SCHEMA_MISMATCH,
            f"SpiceDB's schema has what this one lacks and would drop: {', '.join(dropped)}; "
            "is this an older build than the one that applied last?",
        )
