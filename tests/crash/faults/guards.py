"""Guards that `launcher` can switch off in a process, to see that a soak without them fails: PEMBA_TEST_WITHOUT."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pemba.authorizer.decisions import Decided, Decisions
from pemba.authorizer.waiting import Positions
from pemba.relay import fence
from pemba.relay.fence import Fence, Verdict
from pemba.relay.lease import Holding
from pemba.spicedb.client import SpiceDB
from pemba.storage import delivery, journal


def _fences() -> None:
    """Deliveries are written whatever the fence says, and by whoever held a lease once."""
    original = SpiceDB.write

    async def write(self: SpiceDB, operations: Any, *, must_match: Any = (), **given: Any) -> str:
        kept = () if operations[0].tuple.resource.type != "fence" else must_match
        return await original(self, operations, must_match=kept, **given)

    SpiceDB.write = write  # type: ignore[method-assign]
    Fence.doubt = lambda _: None  # type: ignore[method-assign]
    Holding.is_certain = lambda _: True  # type: ignore[method-assign]


def _prefixes() -> None:
    """A batch is any number of rows."""
    delivery.MAX_ROWS_OF_A_BATCH = 1


def _waiting() -> None:
    """Nobody waits for a token."""
    Positions._reach = lambda self, wanted, _: self.now(wanted)  # type: ignore[method-assign]


def _positions() -> None:
    """What was answered at one position is given at the next."""
    original = Decisions.at

    def at(self: Decisions, tenant_id: Any, position: Any) -> Decided:
        return self._tenants.get(tenant_id) or original(self, tenant_id, position)

    Decisions.at = at  # type: ignore[method-assign]


def _remembering() -> None:
    """A request that is sent again is carried out again."""

    async def nothing(*_: object) -> None:
        """Neither looks nor writes."""

    recall: Callable[..., Awaitable[Any]] = nothing
    journal.recall, journal.remember = recall, recall


def _verdicts() -> None:
    """Whatever a fence says, all is well."""
    fence.judge = lambda *_, **__: Verdict.WELL


GUARDS = {
    "fences": _fences,
    "prefixes": _prefixes,
    "remembering": _remembering,
    "positions": _positions,
    "verdicts": _verdicts,
    "waiting": _waiting,
}


def switch_off(name: str) -> None:
    """For the life of this process."""
    GUARDS[name]()
