"""Decisions that are known already, exact for as long as their tenant's position stays what it is.

An answer depends on the stored tuples, the schema and the question.  Every write of tuples is a row of the tenant's
stream and every schema has a number, so a position's serial stands for all but the question, and what was answered at
an earlier serial goes with it.  Conditional answers, and those to a context of the caller's, are not kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from pemba.authorizer.ground import Position, boot_seconds
from pemba.authorizer.questions import Question
from pemba.errors import BackendError
from pemba.model import TenantId
from pemba.spicedb.client import CheckResult, Decision
from pemba.telemetry import DECISIONS_CACHED, DECISIONS_KNOWN, DECISIONS_UNKNOWN

MAX_TENANTS = 10_000
"""As many as a feed follows: of any other, nothing that is kept would be found again."""

Ask = Callable[[], Awaitable[CheckResult]]


@dataclass(eq=False, slots=True)
class Decided:
    """What is known at one serial of one tenant, and what is being asked."""

    serial: int
    since: float
    token: str = ""
    """The token of this position; empty until somebody made it."""
    allowed: dict[str, bool] = field(default_factory=dict)
    asking: dict[str, asyncio.Task[CheckResult]] = field(default_factory=dict)


class Decisions:
    """At most `limit` decisions, none older than `max_age_seconds`; the tenant asked about longest ago goes first."""

    def __init__(self, limit: int, max_age_seconds: float) -> None:
        self._limit = limit
        self._max_age = max_age_seconds
        self._tenants: OrderedDict[TenantId, Decided] = OrderedDict()
        self._count = 0

    def at(self, tenant_id: TenantId, position: Position) -> Decided:
        """What is known at this position; where it has passed, or nobody follows it, nothing is, and is not kept."""
        now = boot_seconds()
        known = self._tenants.get(tenant_id)
        if known is not None and known.serial == position.serial and now - known.since <= self._max_age:
            self._tenants.move_to_end(tenant_id)
            return known
        fresh = Decided(position.serial, now)
        if position.serial and (known is None or known.serial <= position.serial):
            self._forget(tenant_id)
            self._tenants[tenant_id] = fresh
            if len(self._tenants) > MAX_TENANTS:
                self._forget(next(iter(self._tenants)))
        return fresh

    def known(self, decided: Decided, key: str) -> Decision | None:
        allowed = decided.allowed.get(key)
        if allowed is None:
            DECISIONS_UNKNOWN.inc()
            return None
        DECISIONS_KNOWN.inc()
        return Decision.ALLOWED if allowed else Decision.DENIED

    async def ask(self, tenant_id: TenantId, decided: Decided, key: str, ask: Ask) -> CheckResult:
        """Ask once, however many want to know at the same time.

        Who comes later waits for the first one's answer, and asks anew where that failed: it may have more time.
        """
        running = decided.asking.get(key)
        if running is not None:
            with suppress(BackendError):
                return await asyncio.shield(running)
            return await ask()
        task = decided.asking[key] = asyncio.create_task(self._ask(tenant_id, decided, key, ask))
        task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    def keep(self, tenant_id: TenantId, decided: Decided, key: str, decision: Decision) -> None:
        """Remember an answer, where `decided` is still what is known of the tenant."""
        if decision is Decision.CONDITIONAL or self._tenants.get(tenant_id) is not decided:
            return
        if not self._limit:
            return
        if key not in decided.allowed:
            while self._count >= self._limit:
                self._forget(next(iter(self._tenants)))
            if self._tenants.get(tenant_id) is not decided:  # it was the only one
                self._tenants[tenant_id] = decided
            self._count += 1
            DECISIONS_CACHED.set(self._count)
        decided.allowed[key] = decision is Decision.ALLOWED

    async def _ask(self, tenant_id: TenantId, decided: Decided, key: str, ask: Ask) -> CheckResult:
        try:
            result = await ask()
            self.keep(tenant_id, decided, key, result.decision)
            return result
        finally:
            del decided.asking[key]

    def _forget(self, tenant_id: TenantId) -> None:
        known = self._tenants.pop(tenant_id, None)
        if known is not None:
            self._count -= len(known.allowed)
            known.allowed = {}
            DECISIONS_CACHED.set(self._count)


def _look_at(task: asyncio.Task[CheckResult]) -> None:
    """All who wanted to know may have gone: asyncio would complain of an error that nobody has seen."""
    if not task.cancelled():
        task.exception()


def key_of(question: Question) -> str:
    """The question in one string; no part of it holds a NUL."""
    resource, subject = question.resource, question.subject
    return "\0".join((resource.type, resource.id, question.permission, subject.type, subject.id, subject.relation))


def key_at_one_revision(question: Question) -> str:
    """The same for one of several that are asked at one revision.

    Their answers are kept apart: those at one position may be of different revisions, if none older than it.
    """
    return "\0" + key_of(question)
