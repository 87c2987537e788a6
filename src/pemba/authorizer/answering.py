"""Questions about one tenant, answered at one position: from the records, from what is known there, else by SpiceDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemba.authorizer.decisions import Decided, Decisions, key_at_one_revision, key_of
from pemba.authorizer.ground import (
    Position,
    Snapshot,
    denied_at_once,
    freshness_of,
    is_lasting,
    is_nobodys,
    seconds_left,
    unanswerable,
)
from pemba.authorizer.questions import Answer, Consistency, Question
from pemba.errors import PembaError
from pemba.model import ObjectRef, SubjectRef, TenantId, spicedb_id
from pemba.spicedb.client import CheckQuestion, CheckResult, Decision, Freshness, FullyConsistent, SpiceDB
from pemba.tokens import ConsistencyToken, Signer


@dataclass(frozen=True, slots=True)
class Ground:
    """What the answers stand on.  `deadline` is loop time in seconds."""

    tenant_id: TenantId
    snapshot: Snapshot
    consistency: Consistency
    token: ConsistencyToken | None
    deadline: float

    @property
    def position(self) -> Position:
        return self.snapshot.positions[self.tenant_id]


class Answering:
    """Answers as they stand at a position; raises as SpiceDB's client does."""

    def __init__(self, spicedb: SpiceDB, signer: Signer, decisions: Decisions) -> None:
        self._spicedb = spicedb
        self._signer = signer
        self._decisions = decisions

    async def one(self, ground: Ground, question: Question) -> Answer:
        decided = self._decisions.at(ground.tenant_id, ground.position)
        token = self._token(ground, decided)
        denied = denied_at_once(ground.snapshot, ground.position, question.subject)
        if denied is not None or is_nobodys(ground.position):
            return Answer(Decision.DENIED, denied, (), token)
        if (why_not := unanswerable(ground.snapshot, ground.tenant_id, ground.token)) is not None:
            raise why_not

        async def ask() -> CheckResult:
            asked, freshness = _in_spicedb(ground.tenant_id, question), await self._freshness(ground)
            return await self._spicedb.check(asked, freshness, seconds_left(ground.deadline))

        if not is_lasting(ground.tenant_id, question, ground.consistency, ground.token):
            return _answer(await ask(), token)
        key = key_of(question)
        known = self._decisions.known(decided, key)
        if known is not None:
            return Answer(known, None, (), token)
        return _answer(await self._decisions.ask(ground.tenant_id, decided, key, ask), token)

    async def several(
        self, ground: Ground, questions: Sequence[Question], *, at_one_revision: bool
    ) -> list[Answer | PembaError]:
        """What is not known in one bulk call, at this tenant's own revision: those of different streams are not
        ordered.  `at_one_revision`: all of them in it, or none."""
        decided = self._decisions.at(ground.tenant_id, ground.position)
        token = self._token(ground, decided)
        if is_nobodys(ground.position):
            return [Answer(Decision.DENIED, None, (), token) for _ in questions]
        key = key_at_one_revision if at_one_revision else key_of
        answers = [self._at_hand(ground, decided, question, key(question), token) for question in questions]
        if at_one_revision and None in answers:
            answers = [None if answer is None or answer.reason is None else answer for answer in answers]
        at = [i for i, answer in enumerate(answers) if answer is None]
        found: list[Answer | PembaError] = [answer for answer in answers if answer is not None]
        results = await self._ask_several(ground, [questions[i] for i in at])
        keeps = not at_one_revision or all(map(_is_definite, results))
        for i, result in zip(at, results, strict=True):
            if keeps and isinstance(result, CheckResult) and self._lasts(ground, questions[i]):
                self._decisions.keep(ground.tenant_id, decided, key(questions[i]), result.decision)
            found.insert(i, result if isinstance(result, PembaError) else _answer(result, token))
        return found

    def _at_hand(self, ground: Ground, decided: Decided, question: Question, key: str, token: str) -> Answer | None:
        denied = denied_at_once(ground.snapshot, ground.position, question.subject)
        if denied is not None:
            return Answer(Decision.DENIED, denied, (), token)
        known = self._decisions.known(decided, key) if self._lasts(ground, question) else None
        return None if known is None else Answer(known, None, (), token)

    async def _ask_several(self, ground: Ground, questions: Sequence[Question]) -> Sequence[CheckResult | PembaError]:
        if not questions:
            return ()
        if (why_not := unanswerable(ground.snapshot, ground.tenant_id, ground.token)) is not None:
            return [why_not] * len(questions)
        asked = [_in_spicedb(ground.tenant_id, question) for question in questions]
        freshness = await self._freshness(ground)
        return (await self._spicedb.check_bulk(asked, freshness, seconds_left(ground.deadline))).results

    async def _freshness(self, ground: Ground) -> Freshness:
        freshness = freshness_of(ground.tenant_id, ground.position, ground.consistency, ground.token)
        if isinstance(freshness, FullyConsistent):
            await self._spicedb.reach_head(seconds_left(ground.deadline))
        return freshness

    def _lasts(self, ground: Ground, question: Question) -> bool:
        return is_lasting(ground.tenant_id, question, ground.consistency, ground.token)

    def _token(self, ground: Ground, decided: Decided) -> str:
        """Empty for `minimize_latency`: the revision that SpiceDB takes may be older than what is delivered."""
        if ground.consistency.minimize_latency:
            return ""
        if not decided.token:
            decided.token = self._signer.token(
                {ground.tenant_id: ground.position.delivered_seq}, ground.snapshot.database_epoch
            )
        return decided.token


def _in_spicedb(tenant_id: TenantId, question: Question) -> CheckQuestion:
    resource, subject = question.resource, question.subject
    relation = "member" if subject.type == "group" else subject.relation
    return CheckQuestion(
        ObjectRef(resource.type, spicedb_id(tenant_id, resource.type, resource.id)),
        question.permission,
        SubjectRef(subject.type, spicedb_id(tenant_id, subject.type, subject.id), relation),
        question.context,
    )


def _is_definite(result: CheckResult | PembaError) -> bool:
    return isinstance(result, CheckResult) and result.decision is not Decision.CONDITIONAL


def _answer(result: CheckResult, token: str) -> Answer:
    return Answer(result.decision, None, result.missing_context, token)
