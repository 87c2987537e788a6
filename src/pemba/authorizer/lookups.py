"""Lookups both ways: on what a subject has a permission, and who has it on an object.

What is found at one revision is ordered by id, so a stream can be taken up again after any of its items: the cursor
names the revision (ZedToken), the position that this is fresh enough for, and the last id.  That costs the whole
lookup once more for each part, and bounds what one lookup may find.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import astuple, dataclass, field
from itertools import islice

from pemba.authorizer.access import require_may_list, require_may_look_up
from pemba.authorizer.ground import (
    Position,
    Snapshot,
    denied_at_once,
    freshness_of,
    is_nobodys,
    parked,
    seconds_left,
    token_of_answer,
    unanswerable,
    unknown,
)
from pemba.authorizer.questions import Consistency
from pemba.authorizer.waiting import Positions, Wanted
from pemba.errors import PreconditionFailed, Reason, Unavailable
from pemba.model import (
    GLOBAL_TYPES,
    Caller,
    ObjectRef,
    Seq,
    SubjectRef,
    TenantId,
    TenantStatus,
    UserId,
    decode_id,
    encode_id,
    spicedb_id,
)
from pemba.spicedb import lookups
from pemba.spicedb.client import Decision, Freshness, FullyConsistent, SpiceDB
from pemba.spicedb.lookups import ExactlyAt
from pemba.storage.database import Database
from pemba.tokens import ConsistencyToken, Signer

MAX_FOUND = 100_000
MAX_CONCURRENT = 16
MAX_CURSOR_AGE_SECONDS = 3600
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ResourcesWanted:
    """The objects of `type` on which `subject` has `permission`."""

    type: str
    permission: str
    subject: SubjectRef
    context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SubjectsWanted:
    """The subjects of `subject_type` that have `permission` on `resource`."""

    resource: ObjectRef
    permission: str
    subject_type: str
    context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """At most `limit` (0: all), after the item that `cursor` came with (empty: from the first)."""

    limit: int = 0
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One object or subject, by the callers' id; `cursor` goes on after it."""

    id: str
    decision: Decision
    missing_context: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found, by id; `reason` says why nothing was asked, and `token` names the position."""

    reason: Reason | None
    token: str
    found: Iterator[Found]


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a lookup stands: its snapshot, the revision to ask at, the position and its token, and after which id."""

    snapshot: Snapshot
    position: Position
    at: Freshness | ExactlyAt
    seq: Seq
    token: str
    since: float
    after: str
    why_not: Unavailable | None = None

    def require_answerable(self) -> None:
        """Raises Unavailable where SpiceDB cannot know."""
        if self.why_not is not None:
            raise self.why_not


class Lookups:
    """Asks SpiceDB, at the positions that PostgreSQL says are delivered."""

    def __init__(
        self,
        database: Database,
        spicedb: SpiceDB,
        signer: Signer,
        positions: Positions,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._spicedb = spicedb
        self._signer = signer
        self._positions = positions
        self._clock = clock
        self._running = 0

    async def resources(
        self,
        caller: Caller,
        tenant_id: TenantId,
        wanted: ResourcesWanted,
        consistency: Consistency,
        part: Part,
        deadline: float,
    ) -> Lookup:
        """The tenant's objects on which the subject has the permission.  `deadline` is loop time in seconds.

        Raises as Authorizer.check, and PreconditionFailed (CURSOR_EXPIRED, RESULT_TOO_LARGE).
        """
        arguments = _arguments(caller, tenant_id, wanted, consistency, part)
        await require_may_look_up(self._database, caller, tenant_id, wanted.subject)
        with self._slot():
            subject = wanted.subject
            users = frozenset({UserId(subject.id)}) if subject.type == "user" else frozenset[UserId]()
            start = await self._start(caller, tenant_id, users, arguments, consistency, part, deadline)
            reason = denied_at_once(start.snapshot, start.position, subject)
            if reason is not None or is_nobodys(start.position):
                return Lookup(reason, start.token, iter(()))
            start.require_answerable()
            stored = SubjectRef(
                subject.type,
                spicedb_id(tenant_id, subject.type, subject.id),
                "member" if subject.type == "group" else subject.relation,
            )
            found = await _collect(
                lookups.resources(
                    self._spicedb,
                    wanted.type,
                    wanted.permission,
                    stored,
                    wanted.context,
                    start.at,
                    seconds_left(deadline),
                ),
                _prefix(tenant_id, wanted.type),
            )
        return self._ordered(start, found, arguments, part.limit)

    async def subjects(
        self,
        caller: Caller,
        tenant_id: TenantId,
        wanted: SubjectsWanted,
        consistency: Consistency,
        part: Part,
        deadline: float,
    ) -> Lookup:
        """The subjects that have the permission on the object; users who are not active are left out.

        Raises as `resources`.
        """
        arguments = _arguments(caller, tenant_id, wanted, consistency, part)
        await require_may_list(self._database, caller, tenant_id, wanted.resource)
        with self._slot():
            start = await self._start(caller, tenant_id, frozenset(), arguments, consistency, part, deadline)
            if start.position.status is TenantStatus.SUSPENDED:
                return Lookup(Reason.TENANT_SUSPENDED, start.token, iter(()))
            if is_nobodys(start.position):
                return Lookup(None, start.token, iter(()))
            start.require_answerable()
            resource = wanted.resource
            found = await _collect(
                lookups.subjects(
                    self._spicedb,
                    ObjectRef(resource.type, spicedb_id(tenant_id, resource.type, resource.id)),
                    wanted.permission,
                    (wanted.subject_type, "member" if wanted.subject_type == "group" else ""),
                    wanted.context,
                    start.at,
                    seconds_left(deadline),
                ),
                _prefix(tenant_id, wanted.subject_type),
            )
            if wanted.subject_type == "user":
                await self._leave_out_inactive(tenant_id, found, deadline)
        return self._ordered(start, found, arguments, part.limit)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Raises Unavailable (OVERLOADED) where as many lookups run as may."""
        if self._running >= MAX_CONCURRENT:
            raise Unavailable(Reason.OVERLOADED, "too many lookups are running", retry_seconds=_RETRY_SECONDS)
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _start(
        self,
        caller: Caller,
        tenant_id: TenantId,
        users: frozenset[UserId],
        arguments: object,
        consistency: Consistency,
        part: Part,
        deadline: float,
    ) -> _Start:
        """A lookup that goes on is as fresh as its first part was; whether it may still be answered is asked anew."""
        wanted = Wanted(frozenset({tenant_id}), users, deadline)
        pinned = self._signer.page_position(arguments, part.cursor, "cursor")
        if pinned is None:
            token = self._signer.positions(consistency.at_least_as_fresh) if consistency.at_least_as_fresh else None
            snapshot = await self._positions.meeting(wanted, consistency, token)
            position = _known(caller, snapshot, tenant_id, consistency, token)
            at = freshness_of(tenant_id, position, consistency, token)
            if isinstance(at, FullyConsistent):
                await self._spicedb.reach_head(seconds_left(deadline))
            told = token_of_answer(self._signer, snapshot, tenant_id, position.delivered_seq, consistency)
            why_not = unanswerable(snapshot, tenant_id, token)
            return _Start(snapshot, position, at, position.delivered_seq, told, self._clock(), "", why_not)
        epochs, revision, seq, since, after = pinned
        snapshot = await self._positions.now(wanted)
        if epochs != _epochs(snapshot) or self._clock() - float(since) > MAX_CURSOR_AGE_SECONDS:
            raise PreconditionFailed(Reason.CURSOR_EXPIRED, "the cursor is too old; start over without a cursor")
        position = _known(caller, snapshot, tenant_id, consistency, None)
        told = token_of_answer(self._signer, snapshot, tenant_id, Seq(int(seq)), consistency)
        why_not = unanswerable(snapshot, tenant_id, None)
        return _Start(snapshot, position, ExactlyAt(revision), Seq(int(seq)), told, float(since), after, why_not)

    async def _leave_out_inactive(self, tenant_id: TenantId, found: dict[str, lookups.Found], deadline: float) -> None:
        """Suspensions deny from the records; their tuples may follow later, or stay."""
        wanted = Wanted(frozenset({tenant_id}), frozenset(map(UserId, found)), deadline)
        for user_id in (await self._positions.now(wanted)).inactive_users:
            found.pop(user_id, None)

    def _ordered(self, start: _Start, found: Mapping[str, lookups.Found], arguments: object, limit: int) -> Lookup:
        epochs, seq, since = _epochs(start.snapshot), str(start.seq), str(start.since)

        def tell(id_: str) -> Found:
            item = found[id_]
            cursor = self._signer.page_token(arguments, [epochs, item.looked_up_at, seq, since, id_])
            return Found(id_, item.decision, item.missing_context, cursor)

        ids = sorted(id_ for id_ in found if id_ > start.after)
        return Lookup(None, start.token, map(tell, islice(ids, limit or None)))


def _epochs(snapshot: Snapshot) -> str:
    """A revision of another life of the store is another state, or none."""
    return f"{snapshot.database_epoch}/{snapshot.store_epoch}"


def _known(
    caller: Caller, snapshot: Snapshot, tenant_id: TenantId, consistency: Consistency, token: ConsistencyToken | None
) -> Position:
    refused = unknown(caller, snapshot, tenant_id) or parked(snapshot, tenant_id, consistency, token)
    if refused is not None:
        raise refused
    return snapshot.positions[tenant_id]


async def _collect(stream: AsyncGenerator[lookups.Found], prefix: str) -> dict[str, lookups.Found]:
    """What has this prefix in SpiceDB, by the callers' id: another tenant's is never told."""
    found: dict[str, lookups.Found] = {}
    async with aclosing(stream) as items:
        async for item in items:
            if not item.id.startswith(prefix):
                continue
            id_ = decode_id(item.id.removeprefix(prefix))
            if id_ not in found or item.decision is Decision.ALLOWED:
                found[id_] = item
            if len(found) > MAX_FOUND:
                raise PreconditionFailed(
                    Reason.RESULT_TOO_LARGE,
                    f"more than {MAX_FOUND} were found; ask about less, or list what the records hold",
                    {"limit": str(MAX_FOUND)},
                )
    return found


def _prefix(tenant_id: TenantId, type_: str) -> str:
    return "" if type_ in GLOBAL_TYPES else f"{encode_id(tenant_id)}/"


def _arguments(
    caller: Caller,
    tenant_id: TenantId,
    wanted: ResourcesWanted | SubjectsWanted,
    consistency: Consistency,
    part: Part,
) -> list[object]:
    """What a cursor is bound to."""
    about = [type(wanted).__name__, *astuple(wanted)]
    return [tenant_id, about, astuple(consistency), part.limit, caller.acting_user]
