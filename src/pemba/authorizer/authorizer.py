"""Check and batch check."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pemba.authorizer.access import require_may_ask
from pemba.authorizer.ground import denied_at_once, freshness_of, seconds_left, token_of_answer, unknown, users_of
from pemba.authorizer.lookups import Lookups
from pemba.authorizer.questions import AllAnswer, Answer, BatchAnswer, Consistency, Question
from pemba.authorizer.waiting import Positions, Wanted
from pemba.errors import PembaError
from pemba.model import Caller, ObjectRef, SubjectRef, TenantId, spicedb_id
from pemba.spicedb.client import CheckQuestion, CheckResult, Decision, SpiceDB
from pemba.storage.database import Database
from pemba.storage.positions import Snapshot
from pemba.tokens import MAX_POSITIONS, ConsistencyToken, Signer

MAX_BATCH = 1000
_CONCURRENT_TENANTS = 8


class Authorizer:
    """Answers from SpiceDB, at the positions that PostgreSQL says are delivered."""

    def __init__(self, database: Database, spicedb: SpiceDB, signer: Signer, max_waiters: int) -> None:
        self._database = database
        self._spicedb = spicedb
        self._signer = signer
        self._positions = Positions(database, max_waiters)
        lookups = Lookups(database, spicedb, signer, self._positions)
        self.lookup_resources = lookups.resources
        self.lookup_subjects = lookups.subjects

    async def check(
        self, caller: Caller, tenant_id: TenantId, question: Question, consistency: Consistency, deadline: float
    ) -> Answer:
        """One question.  `deadline` is loop time in seconds.

        Raises NotFound (tenant), InvalidRequest (TOKEN_INVALID), PreconditionFailed (TOKEN_LOST), Unavailable.
        """
        token = self._token(consistency)
        await require_may_ask(self._database, caller, tenant_id, question)
        snapshot = await self._positions.meeting(
            Wanted(frozenset({tenant_id}), users_of([question]), deadline), consistency, token
        )
        if (missing := unknown(caller, snapshot, tenant_id)) is not None:
            raise missing
        position = snapshot.positions[tenant_id]
        answer_token = token_of_answer(self._signer, tenant_id, position.delivered_seq, consistency)
        denied = denied_at_once(snapshot, position, question.subject)
        if denied is not None:
            return Answer(Decision.DENIED, denied, (), answer_token)
        result = await self._spicedb.check(
            _in_spicedb(tenant_id, question),
            freshness_of(tenant_id, position, consistency, token),
            seconds_left(deadline),
        )
        return _answer(result, answer_token)

    async def batch_check(
        self, caller: Caller, items: Sequence[tuple[TenantId, Question]], consistency: Consistency, deadline: float
    ) -> BatchAnswer:
        """Up to 1,000 questions, each with a result of its own, in order.  Raises as `check`, but for NotFound."""
        token = self._token(consistency)
        tenants = frozenset(tenant_id for tenant_id, _ in items)
        results: list[Answer | PembaError | None] = [None] * len(items)
        await self._refuse(caller, items, results)
        snapshot = await self._positions.meeting(
            Wanted(tenants, users_of([q for _, q in items]), deadline), consistency, token
        )
        for i, (tenant_id, _) in enumerate(items):
            results[i] = results[i] or unknown(caller, snapshot, tenant_id)
        limit = asyncio.Semaphore(_CONCURRENT_TENANTS)

        async def ask(tenant_id: TenantId) -> None:
            at = [i for i, (t, _) in enumerate(items) if t == tenant_id and results[i] is None]
            async with limit:
                answers = await self._ask_tenant(
                    tenant_id, [items[i][1] for i in at], snapshot, consistency, token, deadline
                )
            for i, answer in zip(at, answers, strict=True):
                results[i] = answer

        await asyncio.gather(*(ask(tenant_id) for tenant_id in sorted(tenants)))
        token_of_all = "" if consistency.minimize_latency else self._token_of(snapshot, tenants)
        return BatchAnswer(tuple(r for r in results if r is not None), token_of_all)

    async def check_all(
        self,
        caller: Caller,
        tenant_id: TenantId,
        questions: Sequence[Question],
        consistency: Consistency,
        deadline: float,
    ) -> AllAnswer:
        """Questions that differ in their permission alone, in one bulk call at one revision.

        Raises as `check`, also where only one of them has an error: half an answer would read as denials.
        """
        token = self._token(consistency)
        await require_may_ask(self._database, caller, tenant_id, questions[0])
        wanted = Wanted(frozenset({tenant_id}), users_of(questions), deadline)
        snapshot = await self._positions.meeting(wanted, consistency, token)
        if (missing := unknown(caller, snapshot, tenant_id)) is not None:
            raise missing
        position = snapshot.positions[tenant_id]
        results = await self._ask_tenant(tenant_id, questions, snapshot, consistency, token, deadline)
        answers: dict[str, Answer] = {}
        for question, result in zip(questions, results, strict=True):
            if isinstance(result, PembaError):
                raise result
            answers[question.permission] = result
        reason = denied_at_once(snapshot, position, questions[0].subject)
        answer_token = token_of_answer(self._signer, tenant_id, position.delivered_seq, consistency)
        return AllAnswer(answers, reason, answer_token)

    async def _refuse(
        self, caller: Caller, items: Sequence[tuple[TenantId, Question]], results: list[Answer | PembaError | None]
    ) -> None:
        """Fill in the errors of those items that the caller may not ask."""
        if caller.acting_user is None:
            return
        for i, (tenant_id, question) in enumerate(items):
            try:
                await require_may_ask(self._database, caller, tenant_id, question)
            except PembaError as error:
                results[i] = error

    async def _ask_tenant(
        self,
        tenant_id: TenantId,
        questions: Sequence[Question],
        snapshot: Snapshot,
        consistency: Consistency,
        token: ConsistencyToken | None,
        deadline: float,
    ) -> list[Answer | PembaError]:
        """One bulk call, at this tenant's own revision: those of different streams are not ordered."""
        position = snapshot.positions[tenant_id]
        answer_token = token_of_answer(self._signer, tenant_id, position.delivered_seq, consistency)
        reasons = [denied_at_once(snapshot, position, question.subject) for question in questions]
        asked = [_in_spicedb(tenant_id, q) for q, reason in zip(questions, reasons, strict=True) if reason is None]
        results: Sequence[CheckResult | PembaError] = ()
        if asked:
            freshness = freshness_of(tenant_id, position, consistency, token)
            results = (await self._spicedb.check_bulk(asked, freshness, seconds_left(deadline))).results
        remaining = iter(results)
        return [
            Answer(Decision.DENIED, reason, (), answer_token)
            if reason is not None
            else _answer_or_error(next(remaining), answer_token)
            for reason in reasons
        ]

    def _token(self, consistency: Consistency) -> ConsistencyToken | None:
        return self._signer.positions(consistency.at_least_as_fresh) if consistency.at_least_as_fresh else None

    def _token_of(self, snapshot: Snapshot, tenants: frozenset[TenantId]) -> str:
        found = {tenant: snapshot.positions[tenant] for tenant in tenants}
        known = {tenant: position.delivered_seq for tenant, position in found.items() if position.status is not None}
        return self._signer.token(known) if 0 < len(known) <= MAX_POSITIONS else ""


def _in_spicedb(tenant_id: TenantId, question: Question) -> CheckQuestion:
    resource, subject = question.resource, question.subject
    relation = "member" if subject.type == "group" else subject.relation
    return CheckQuestion(
        ObjectRef(resource.type, spicedb_id(tenant_id, resource.type, resource.id)),
        question.permission,
        SubjectRef(subject.type, spicedb_id(tenant_id, subject.type, subject.id), relation),
        question.context,
    )


def _answer(result: CheckResult, token: str) -> Answer:
    return Answer(result.decision, None, result.missing_context, token)


def _answer_or_error(result: CheckResult | PembaError, token: str) -> Answer | PembaError:
    return result if isinstance(result, PembaError) else _answer(result, token)
