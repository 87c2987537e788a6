"""Named instants around every side effect of Pemba's processes, at which one can be killed.  The product knows nothing
of them: `arm` wraps its functions from outside, in a process that `launcher` starts.

A change of PostgreSQL has three: `before` its statement is sent, `uncommitted` when all of its transaction's statements
are done and COMMIT is not sent, `committed` when COMMIT is answered.  A write to SpiceDB and a NOTIFY have `before` and
`after`.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pemba.relay import fence
from pemba.relay.healing import Healing
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery, journal, leases, lives, outbox, tenant_deletions, user_jobs
from pemba.storage.database import Database
from pemba.storage.lives import Lives
from pemba.storage.wakeup import Notifier

# Each function changes PostgreSQL in a transaction that it gets as its first argument.
RELAY_STATEMENTS: dict[str, tuple[Any, str]] = {
    "lease.take": (leases, "take"),
    "lease.renew": (leases, "renew"),
    "lease.release": (leases, "release"),
    "fence.number": (leases, "raise_number"),
    "fence.landed": (leases, "mark_landed"),
    "record": (delivery, "mark_delivered_if_leased"),
    "retention.outbox": (delivery, "prune_outbox"),
    "retention.idempotency": (delivery, "prune_idempotency"),
    "job.step": (user_jobs, "advance"),
    "job.end": (user_jobs, "drop"),
}
# Of the removal of a tenant.
DELETION_STATEMENTS: dict[str, tuple[Any, str]] = {
    "deletion.rows": (tenant_deletions, "remove_some"),
    "deletion.step": (tenant_deletions, "note_step"),
    "deletion.end": (tenant_deletions, "finish"),
}
SERVE_STATEMENTS: dict[str, tuple[Any, str]] = {
    "head": (outbox, "advance"),
    "rows": (journal, "append"),
    "response": (journal, "remember"),
    "refusal": (journal, "append_refused"),
    "global.claim": (journal, "claim"),
    "global.row": (journal, "append_global"),
    "global.response": (journal, "complete"),
}
# What a relay does after a loss; `rows` are the repairs with which it fills the store.
HEALING_STATEMENTS: dict[str, tuple[Any, str]] = {
    "rows": (journal, "append"),
    "filled": (lives, "mark_filled"),
}
RELAY_CALLS = ("fence.write", "delivery.write")
HEALING_CALLS = ("loss.declared", "loss.fences")
SERVE_CALLS = ("notify",)


@dataclass(frozen=True)
class Point:
    """`name` as `record.uncommitted`; reached for the `count`th time, the process is gone."""

    name: str
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Point:
        name, _, count = text.partition(":")
        return cls(name, int(count or 1))

    def __str__(self) -> str:
        return f"{self.name}:{self.count}"


def _names(statements: dict[str, tuple[Any, str]], calls: tuple[str, ...]) -> list[str]:
    return [f"{name}.{side}" for name in statements for side in ("before", "uncommitted", "committed")] + [
        f"{name}.{side}" for name in calls for side in ("before", "after")
    ]


RELAY_POINTS = _names(RELAY_STATEMENTS, RELAY_CALLS)
SERVE_POINTS = _names(SERVE_STATEMENTS, SERVE_CALLS)
DELETION_POINTS = _names(DELETION_STATEMENTS, ())
HEALING_POINTS = _names(HEALING_STATEMENTS, HEALING_CALLS)

Reach = Callable[[str], None]


def arm(point: Point) -> None:
    """From now on this process kills itself, with what SIGKILL leaves behind, when it gets there."""
    assert point.name in RELAY_POINTS + SERVE_POINTS + HEALING_POINTS + DELETION_POINTS, f"no such point: {point.name}"
    reached = 0

    def reach(name: str) -> None:
        nonlocal reached
        if name == point.name:
            reached += 1
            if reached == point.count:
                os.kill(os.getpid(), signal.SIGKILL)

    wrap(reach)


def wrap(reach: Reach) -> None:
    """Have `reach` called with the name of each point as it is reached."""
    touched: dict[int, list[str]] = {}
    every = {**RELAY_STATEMENTS, **SERVE_STATEMENTS, **HEALING_STATEMENTS, **DELETION_STATEMENTS}
    for name, (module, function) in every.items():
        setattr(module, function, _statement(name, getattr(module, function), touched, reach))
    Database._transaction = _transactions(Database._transaction, touched, reach)  # type: ignore[method-assign]
    SpiceDB.write = _write(SpiceDB.write, reach)  # type: ignore[method-assign]
    Notifier._flush = _call("notify", Notifier._flush, reach)  # type: ignore[method-assign]
    Lives.begin = _call("loss.declared", Lives.begin, reach)  # type: ignore[method-assign]
    Healing._write_fences = _call("loss.fences", Healing._write_fences, reach)  # type: ignore[method-assign]


def _statement(
    name: str, function: Callable[..., Awaitable[Any]], touched: dict[int, list[str]], reach: Reach
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def run(tx: Any, *given: Any, **named: Any) -> Any:
        reach(f"{name}.before")
        result = await function(tx, *given, **named)
        touched.setdefault(id(tx.connection), []).append(name)
        return result

    return run


def _transactions(original: Any, touched: dict[int, list[str]], reach: Reach) -> Any:
    @asynccontextmanager
    async def transaction(database: Database, role: str, begin: str, make: Any) -> Any:
        key = 0
        try:
            async with original(database, role, begin, make) as tx:
                key = id(tx.connection)
                yield tx
                for name in touched.get(key, ()) if not tx.discarded else ():
                    reach(f"{name}.uncommitted")
            for name in touched.get(key, ()) if not tx.discarded else ():
                reach(f"{name}.committed")
        finally:
            touched.pop(key, None)

    return transaction


def _write(original: Any, reach: Reach) -> Any:
    @functools.wraps(original)
    async def write(spicedb: SpiceDB, operations: Any, **given: Any) -> str:
        name = "fence.write" if operations[0].tuple.resource == fence.OBJECT else "delivery.write"
        reach(f"{name}.before")
        token: str = await original(spicedb, operations, **given)
        reach(f"{name}.after")
        return token

    return write


def _call(name: str, original: Any, reach: Reach) -> Any:
    @functools.wraps(original)
    async def call(*given: Any, **named: Any) -> None:
        reach(f"{name}.before")
        await original(*given, **named)
        reach(f"{name}.after")

    return call
