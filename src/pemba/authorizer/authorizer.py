"""Check and batch check."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pemba.authorizer.access import require_may_ask
from pemba.authorizer.questions import Answer, BatchAnswer, Consistency, Question
from pemba.authorizer.waiting import Positions, Wanted
from pemba.errors import NotFound, PembaError, Reason
from pemba.model import Caller, ObjectRef, SubjectRef, TenantId, TenantStatus, UserId, spicedb_id
from pemba.spicedb.client import (
    AtLeast,
    CheckQuestion,
    CheckResult,
    Decision,
    Freshness,
    FullyConsistent,
    MinimizeLatency,
    SpiceDB,
)
from pemba.storage.database import Database
from pemba.storage.positions import Position, Snapshot
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

    async def check(
        self, caller: Caller, tenant_id: TenantId, question: Question, consistency: Consistency, deadline: float
    ) -> Answer:
        """One question.  `deadline` is loop time in seconds.

        Raises NotFound (tenant), InvalidRequest (TOKEN_INVALID), PreconditionFailed (TOKEN_LOST), Unavailable.
        """
        token = self._token(consistency)
        await require_may_ask(self._database, caller, tenant_id, question)
        snapshot = await self._snapshot(
            Wanted(frozenset({tenant_id}), _users([question]), deadline), consistency, token
        )
        if (unknown := _unknown(caller, snapshot, tenant_id)) is not None:
            raise unknown
        position = snapshot.positions[tenant_id]
        answer_token = self._token_of_answer(tenant_id, position, consistency)
        denied = _denied_at_once(snapshot, position, question)
        if denied is not None:
            return Answer(Decision.DENIED, denied, (), answer_token)
        result = await self._spicedb.check(
            _in_spicedb(tenant_id, question), _freshness(tenant_id, position, consistency, token), _left(deadline)
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
        snapshot = await self._snapshot(Wanted(tenants, _users([q for _, q in items]), deadline), consistency, token)
        for i, (tenant_id, _) in enumerate(items):
            results[i] = results[i] or _unknown(caller, snapshot, tenant_id)
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
        answer_token = self._token_of_answer(tenant_id, position, consistency)
        reasons = [_denied_at_once(snapshot, position, question) for question in questions]
        asked = [_in_spicedb(tenant_id, q) for q, reason in zip(questions, reasons, strict=True) if reason is None]
        results: Sequence[CheckResult | PembaError] = ()
        if asked:
            freshness = _freshness(tenant_id, position, consistency, token)
            results = (await self._spicedb.check_bulk(asked, freshness, _left(deadline))).results
        remaining = iter(results)
        return [
            Answer(Decision.DENIED, reason, (), answer_token)
            if reason is not None
            else _answer_or_error(next(remaining), answer_token)
            for reason in reasons
        ]

    def _token_of_answer(self, tenant_id: TenantId, position: Position, consistency: Consistency) -> str:
        """Empty for `minimize_latency`: the revision that SpiceDB took may be older than what is delivered."""
        return "" if consistency.minimize_latency else self._signer.token({tenant_id: position.delivered_seq})

    def _token(self, consistency: Consistency) -> ConsistencyToken | None:
        return self._signer.positions(consistency.at_least_as_fresh) if consistency.at_least_as_fresh else None

    async def _snapshot(self, wanted: Wanted, consistency: Consistency, token: ConsistencyToken | None) -> Snapshot:
        if token is not None:
            return await self._positions.at_token(wanted, token)
        if consistency.fully_consistent:
            return await self._positions.at_head(wanted)
        return await self._positions.now(wanted)

    def _token_of(self, snapshot: Snapshot, tenants: frozenset[TenantId]) -> str:
        found = {tenant: snapshot.positions[tenant] for tenant in tenants}
        known = {tenant: position.delivered_seq for tenant, position in found.items() if position.status is not None}
        return self._signer.token(known) if 0 < len(known) <= MAX_POSITIONS else ""


def _users(questions: Sequence[Question]) -> frozenset[UserId]:
    return frozenset(UserId(q.subject.id) for q in questions if q.subject.type == "user")


def _unknown(caller: Caller, snapshot: Snapshot, tenant_id: TenantId) -> NotFound | None:
    """For a caller in its own name.  A user learns no more of an unknown tenant than of another's: DENIED."""
    if caller.acting_user is None and snapshot.positions[tenant_id].status is None:
        return NotFound(f"tenant {tenant_id}")
    return None


def _denied_at_once(snapshot: Snapshot, position: Position, question: Question) -> Reason | None:
    """Suspensions deny from the records; their tuples may follow later, or stay."""
    if position.status is TenantStatus.SUSPENDED:
        return Reason.TENANT_SUSPENDED
    if question.subject.type == "user" and question.subject.id in snapshot.inactive_users:
        return Reason.USER_SUSPENDED
    return None


def _freshness(
    tenant_id: TenantId, position: Position, consistency: Consistency, token: ConsistencyToken | None
) -> Freshness:
    """Fresh enough for every stream that the token names: revisions of different streams are not ordered, so one
    that names another tenant is asked fully consistent.  So is a tenant whose revision is not known, or older than
    the schema in force.
    """
    if consistency.minimize_latency:
        return MinimizeLatency()
    names_others = token is not None and token.positions.keys() != {tenant_id}
    if consistency.fully_consistent or names_others or position.zedtoken is None:
        return FullyConsistent()
    return AtLeast(position.zedtoken)


def _in_spicedb(tenant_id: TenantId, question: Question) -> CheckQuestion:
    resource, subject = question.resource, question.subject
    relation = "member" if subject.type == "group" else subject.relation
    return CheckQuestion(
        ObjectRef(resource.type, spicedb_id(tenant_id, resource.type, resource.id)),
        question.permission,
        SubjectRef(subject.type, spicedb_id(tenant_id, subject.type, subject.id), relation),
        question.context,
    )


def _left(deadline: float) -> float:
    return max(deadline - asyncio.get_running_loop().time(), 0.001)


def _answer(result: CheckResult, token: str) -> Answer:
    return Answer(result.decision, None, result.missing_context, token)


def _answer_or_error(result: CheckResult | PembaError, token: str) -> Answer | PembaError:
    return result if isinstance(result, PembaError) else _answer(result, token)
