"""Check, batch check, and every permission at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pemba.authorizer.access import require_may_ask
from pemba.authorizer.answering import Answering, Ground
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.feed import Feed
from pemba.authorizer.ground import Snapshot, denied_at_once, parked, token_of_answer, unknown, users_of
from pemba.authorizer.lookups import Lookups
from pemba.authorizer.questions import AllAnswer, Answer, BatchAnswer, Consistency, Question
from pemba.authorizer.waiting import Positions, Wanted
from pemba.errors import BackendError, PembaError
from pemba.model import Caller, TenantId
from pemba.spicedb.client import SpiceDB
from pemba.storage.database import Database
from pemba.tokens import MAX_POSITIONS, ConsistencyToken, Signer

MAX_BATCH = 1000
_CONCURRENT_TENANTS = 8


class Authorizer:
    """Answers at the positions that PostgreSQL says are delivered."""

    def __init__(
        self, database: Database, spicedb: SpiceDB, signer: Signer, feed: Feed, decisions: Decisions, max_waiters: int
    ) -> None:
        self._database = database
        self._signer = signer
        self._positions = Positions(feed, max_waiters)
        self._answering = Answering(spicedb, signer, decisions)
        lookups = Lookups(database, spicedb, signer, self._positions)
        self.lookup_resources = lookups.resources
        self.lookup_subjects = lookups.subjects

    async def check(
        self, caller: Caller, tenant_id: TenantId, question: Question, consistency: Consistency, deadline: float
    ) -> Answer:
        """One question.  `deadline` is loop time in seconds.

        Raises NotFound (tenant), InvalidRequest (TOKEN_INVALID), PreconditionFailed (TOKEN_LOST, TENANT_PARKED),
        Unavailable.
        """
        ground = await self._ground(caller, tenant_id, [question], consistency, deadline)
        return await self._answering.one(ground, question)

    async def batch_check(
        self, caller: Caller, items: Sequence[tuple[TenantId, Question]], consistency: Consistency, deadline: float
    ) -> BatchAnswer:
        """Up to 1,000 questions, each with a result of its own, in order.

        Raises as `check`, but for what is an item's own: NotFound and TENANT_PARKED.
        """
        token = self._token(consistency)
        tenants = frozenset(tenant_id for tenant_id, _ in items)
        results: list[Answer | PembaError | None] = [None] * len(items)
        await self._refuse(caller, items, results)
        wanted = Wanted(tenants, users_of([question for _, question in items]), deadline)
        snapshot = await self._positions.meeting(wanted, consistency, token)
        for i, (tenant_id, _) in enumerate(items):
            refused = unknown(caller, snapshot, tenant_id) or parked(snapshot, tenant_id, consistency, token)
            results[i] = results[i] or refused
        limit = asyncio.Semaphore(_CONCURRENT_TENANTS)

        async def ask(tenant_id: TenantId) -> None:
            at = [i for i, (t, _) in enumerate(items) if t == tenant_id and results[i] is None]
            ground = Ground(tenant_id, snapshot, consistency, token, deadline)
            answers: Sequence[Answer | PembaError]
            try:
                async with limit:
                    answers = await self._answering.several(ground, [items[i][1] for i in at], at_one_revision=False)
            except BackendError as error:
                if len(tenants) == 1:
                    raise
                answers = [error] * len(at)  # the other tenants' answers stand
            for i, answer in zip(at, answers, strict=True):
                results[i] = answer

        await asyncio.gather(*(ask(tenant_id) for tenant_id in sorted(tenants)))
        token_of_all = "" if consistency.minimize_latency else self._token_of(snapshot, tenants)
        assert None not in results  # an item without its answer would shift all after it
        return BatchAnswer(tuple(r for r in results if r is not None), token_of_all)

    async def check_all(
        self,
        caller: Caller,
        tenant_id: TenantId,
        questions: Sequence[Question],
        consistency: Consistency,
        deadline: float,
    ) -> AllAnswer:
        """Questions that differ in their permission alone, at one revision.

        Raises as `check`, also where only one of them has an error: half an answer would read as denials.
        """
        ground = await self._ground(caller, tenant_id, questions, consistency, deadline)
        results = await self._answering.several(ground, questions, at_one_revision=True)
        answers: dict[str, Answer] = {}
        for question, result in zip(questions, results, strict=True):
            if isinstance(result, PembaError):
                raise result
            answers[question.permission] = result
        reason = denied_at_once(ground.snapshot, ground.position, questions[0].subject)
        return AllAnswer(
            answers,
            reason,
            token_of_answer(self._signer, ground.snapshot, tenant_id, ground.position.delivered_seq, consistency),
        )

    async def _ground(
        self,
        caller: Caller,
        tenant_id: TenantId,
        questions: Sequence[Question],
        consistency: Consistency,
        deadline: float,
    ) -> Ground:
        """For questions about one object and one subject."""
        token = self._token(consistency)
        await require_may_ask(self._database, caller, tenant_id, questions[0])
        wanted = Wanted(frozenset({tenant_id}), users_of(questions), deadline)
        snapshot = await self._positions.meeting(wanted, consistency, token)
        refused = unknown(caller, snapshot, tenant_id) or parked(snapshot, tenant_id, consistency, token)
        if refused is not None:
            raise refused
        return Ground(tenant_id, snapshot, consistency, token, deadline)

    async def _refuse(
        self, caller: Caller, items: Sequence[tuple[TenantId, Question]], results: list[Answer | PembaError | None]
    ) -> None:
        """Fill in the errors of those items that the caller may not ask."""
        if caller.is_system:
            return
        for i, (tenant_id, question) in enumerate(items):
            try:
                await require_may_ask(self._database, caller, tenant_id, question)
            except PembaError as error:
                results[i] = error

    def _token(self, consistency: Consistency) -> ConsistencyToken | None:
        return self._signer.positions(consistency.at_least_as_fresh) if consistency.at_least_as_fresh else None

    def _token_of(self, snapshot: Snapshot, tenants: frozenset[TenantId]) -> str:
        found = {tenant: snapshot.positions[tenant] for tenant in tenants}
        known = {tenant: position.delivered_seq for tenant, position in found.items() if position.status is not None}
        return self._signer.token(known, snapshot.database_epoch) if 0 < len(known) <= MAX_POSITIONS else ""
