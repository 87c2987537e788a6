"""What an answer stands on: the tenant's position, the statuses that deny at once, and the revision to ask at."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pemba.authorizer.questions import Consistency, Question
from pemba.errors import NotFound, PreconditionFailed, Reason, Unavailable
from pemba.model import GLOBAL_STREAM, Caller, Seq, SubjectRef, TenantId, TenantStatus, UserId
from pemba.spicedb.client import AtLeast, Freshness, FullyConsistent, MinimizeLatency
from pemba.tokens import ConsistencyToken, Signer

RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Position:
    """A tenant's standing.  `status` is None where there is no such tenant, or one that is being deleted.

    `zedtoken` is None where no revision is known to be fresh enough: nothing was written yet, the schema was applied
    since, or something expired.  `serial` names this state of affairs: as long as it stays, so does every answer; it
    grows, and is 0 where no answer lasts.
    """

    status: TenantStatus | None
    delivered_seq: Seq
    zedtoken: str | None
    serial: int
    in_store: bool = True
    """False between a loss of SpiceDB's data and the repair of this tenant's."""
    parked_from: Seq | None = None
    """The first row of which SpiceDB refuses an operation; None where there is none."""
    closed: bool = False
    """Somebody could be left with more than the records say: nothing is answered."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Positions by tenant, those of the users asked about who are not active, and the head of the stream `~`.

    `current` is False where something may have moved while it was put together: it is as of when it was asked for.
    """

    database_epoch: uuid.UUID
    store_epoch: uuid.UUID
    positions: Mapping[TenantId, Position]
    inactive_users: frozenset[UserId]
    statuses_seq: Seq
    current: bool

    def reached(self, stream: TenantId) -> Seq:
        """How far a stream is in force: `~` is by its commits."""
        return self.statuses_seq if stream == GLOBAL_STREAM else self.positions[stream].delivered_seq


def users_of(questions: Sequence[Question]) -> frozenset[UserId]:
    """The users that the questions are about."""
    return frozenset(UserId(q.subject.id) for q in questions if q.subject.type == "user")


def unknown(caller: Caller, snapshot: Snapshot, tenant_id: TenantId) -> NotFound | None:
    """For a caller in its own name.  A user learns no more of an unknown tenant than of another's: DENIED."""
    if caller.acting_user is None and snapshot.positions[tenant_id].status is None:
        return NotFound(f"tenant {tenant_id}")
    return None


def unanswerable(snapshot: Snapshot, tenant_id: TenantId, token: ConsistencyToken | None) -> Unavailable | None:
    """Where SpiceDB cannot know: its data was lost, and not everything is there again that the answer hangs on."""
    involved = {tenant_id} if token is None else {tenant_id, *token.positions} - {GLOBAL_STREAM}
    missing = [each for each in sorted(involved) if not snapshot.positions[each].in_store]
    if not missing:
        return None
    return Unavailable(
        Reason.SPICEDB_UNAVAILABLE,
        f"SpiceDB's data was lost, and what belongs to {missing[0]} is being restored; try again",
        retry_seconds=RETRY_SECONDS,
    )


def parked(
    snapshot: Snapshot, tenant_id: TenantId, consistency: Consistency, token: ConsistencyToken | None
) -> PreconditionFailed | None:
    """Where an answer would lack what it is asked to have in force, or could allow more than the records do.

    `fully_consistent` is a token of the head, and the head is past whatever is parked.
    """
    if snapshot.positions[tenant_id].status is None:
        return None
    goal: dict[TenantId, Seq | None] = {tenant_id: None}
    if token is not None:
        goal |= {stream: seq for stream, seq in token.positions.items() if stream != GLOBAL_STREAM}
    for stream, seq in goal.items():
        position = snapshot.positions[stream]
        if position.parked_from is None:
            continue
        at_head = consistency.fully_consistent and stream == tenant_id
        if position.closed or at_head or (seq is not None and seq >= position.parked_from):
            return _parked(stream, position.parked_from, position.closed)
    return None


def _parked(stream: TenantId, first: Seq, closed: bool) -> PreconditionFailed:
    why = "nothing is answered until that is repaired" if closed else "so the change cannot be in force"
    return PreconditionFailed(
        Reason.TENANT_PARKED,
        f"SpiceDB refuses an operation of row {first} of {stream}, {why}: `pemba outbox parked` says what and why, "
        "`pemba outbox retry` tries it again",
        {"stream": stream, "seq": str(first)},
    )


def token_of_answer(signer: Signer, snapshot: Snapshot, tenant_id: TenantId, seq: Seq, consistency: Consistency) -> str:
    """Empty for `minimize_latency`: the revision that SpiceDB took may be older than what is delivered."""
    return "" if consistency.minimize_latency else signer.token({tenant_id: seq}, snapshot.database_epoch)


def is_nobodys(position: Position) -> bool:
    """Where there is no such tenant, or no more, everything is denied, whatever SpiceDB still holds of it."""
    return position.status is None


def denied_at_once(snapshot: Snapshot, position: Position, subject: SubjectRef) -> Reason | None:
    """Suspensions deny from the records; their tuples may follow later, or stay."""
    if position.status is TenantStatus.SUSPENDED:
        return Reason.TENANT_SUSPENDED
    if subject.type == "user" and subject.id in snapshot.inactive_users:
        return Reason.USER_SUSPENDED
    return None


def freshness_of(
    tenant_id: TenantId, position: Position, consistency: Consistency, token: ConsistencyToken | None
) -> Freshness:
    """Fresh enough for every stream that the token names: revisions of different streams are not ordered, so one
    that names another tenant is asked fully consistent.  So is a tenant whose revision is not known, or older than
    the schema in force.
    """
    if consistency.minimize_latency:
        return MinimizeLatency()
    if consistency.fully_consistent or names_others(tenant_id, token) or position.zedtoken is None:
        return FullyConsistent()
    return AtLeast(position.zedtoken)


def names_others(tenant_id: TenantId, token: ConsistencyToken | None) -> bool:
    """Whether the answer hangs on other tenants' positions as well."""
    return token is not None and bool(token.positions.keys() - {tenant_id, GLOBAL_STREAM})


def is_lasting(
    tenant_id: TenantId, question: Question, consistency: Consistency, token: ConsistencyToken | None
) -> bool:
    """Whether the answer lasts as long as the tenant's position does, so that it may be kept, and a kept one given."""
    exact = consistency.fully_consistent or consistency.minimize_latency
    return not (exact or question.context or names_others(tenant_id, token))


def boot_seconds() -> float:
    """On a clock that runs on while the machine is suspended: what is known ages meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def seconds_left(deadline: float) -> float:
    """What is left until `deadline` (loop time), never 0: a call to SpiceDB takes it as its timeout."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)
