"""The second look: whether a tuple that seemed to differ does.

Store and records are read at different moments, and a change may be on its way.  So each candidate is looked at again
in this order: how far its tenant is delivered, what the records say of it, whether it is stored (fully consistent),
and last whether any row of the stream after that position names it.  Where none does, nothing can have changed it in
between, neither in the records nor in the store, and a difference is drift whatever else the tenant is busy with.
(A change of a user's status comes before its rows: while its job is under way, that user's tuples are on their way.
And a tuple that has expired is not stored any more, whether its record is withdrawn already or not: the same.)

A tuple with another expiration than its record's is one that is missing, and not another one too much: to put the
right one there takes the wrong one's place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pemba import projection
from pemba.model import ObjectRef, Seq, SubjectRef, SystemScope, TenantId, Tuple, UserId, WorkspaceId
from pemba.service import wanted
from pemba.storage import streams
from pemba.storage.database import Database, SystemTransaction

MAX_UNDELIVERED_ROWS = 100
"""Of a tenant that is further behind everything counts as on its way: its rows are too much to read for each page."""

_WHY = SystemScope("compare SpiceDB with the records")


class Store(Protocol):
    """What is stored in SpiceDB."""

    def scan(self, type_: str, id_prefix: str) -> AsyncGenerator[Tuple]:
        """Every tuple on objects of that type whose ids begin so, at one revision."""
        ...

    async def holding(self, tuples: Sequence[Tuple]) -> set[Tuple]:
        """Those of these that are stored now."""
        ...


class Kind(StrEnum):
    MISSING = "missing"
    TOO_MUCH = "too_much"
    FOREIGN = "foreign"
    """On an object whose id no tenant can have: no question can name it, and no tenant's stream can delete it."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A tuple that differs, and the tenant whose stream would repair it (None: FOREIGN)."""

    kind: Kind
    tuple: Tuple
    tenant_id: TenantId | None


@dataclass(frozen=True, slots=True)
class Finding:
    """A drift in the words of callers; names are `acme/eng/backend`, empty where there is no record."""

    drift: Drift
    tenant_slug: str
    object: ObjectRef
    object_name: str
    subject: SubjectRef
    subject_name: str


@dataclass(frozen=True, slots=True)
class Looked:
    """`undelivered` counts candidates about which a change is on its way."""

    drifts: list[Drift]
    undelivered: int


async def look(database: Database, store: Store, candidates: Sequence[Tuple]) -> Looked:
    """At a page of candidates again; those that do not differ any more are in no count."""
    owners = {t: projection.owner_of(t) for t in candidates}
    tenants = {owner for owner in owners.values() if owner is not None}
    async with database.begin(_WHY) as tx:
        before = await streams.positions(tx, tenants)
        expected = await wanted.among(tx, candidates)
    held = await store.holding(candidates)
    stood_for = {t.plain for t in expected}
    differing = [
        t for t in candidates if (t in held) != (t in expected) and (t in expected or t.plain not in stood_for)
    ]
    async with database.begin(_WHY) as tx:
        moving = await _on_their_way(tx, before, differing)
    drifts = [Drift(_kind(t in held, owners[t]), t, owners[t]) for t in differing if t not in moving]
    return Looked(drifts, len(moving))


async def described(database: Database, drifts: Sequence[Drift]) -> list[Finding]:
    """With the names of what they name, in their order."""
    ends = {drift: _ends(drift) for drift in drifts}
    named = {
        (drift.tenant_id, WorkspaceId(ref.id))
        for drift, pair in ends.items()
        for ref in pair
        if drift.tenant_id is not None and ref.type == "workspace"
    }
    async with database.begin(_WHY) as tx:
        slugs = await streams.slugs(tx, {drift.tenant_id for drift in drifts if drift.tenant_id})
        paths = await streams.paths(tx, named)

    def name(drift: Drift, ref: SubjectRef) -> str:
        slug = slugs.get(drift.tenant_id or TenantId(""), "")
        if drift.tenant_id is None or not slug:
            return ""
        if ref == SubjectRef("tenant", drift.tenant_id):
            return slug
        path = paths.get((drift.tenant_id, WorkspaceId(ref.id))) if ref.type == "workspace" else None
        return "" if path is None else f"{slug}/{path}".rstrip("/") + ("" if path else "/")

    return [
        Finding(
            drift,
            slugs.get(drift.tenant_id, "") if drift.tenant_id else "",
            ObjectRef(object_.type, object_.id),
            name(drift, object_),
            subject,
            name(drift, subject),
        )
        for drift, (object_, subject) in ends.items()
    ]


def _ends(drift: Drift) -> tuple[SubjectRef, SubjectRef]:
    """Object and subject by the ids that callers know."""
    resource, owner = drift.tuple.resource, drift.tenant_id or TenantId("")
    object_ = SubjectRef(resource.type, resource.id)
    return projection.for_callers(owner, object_), projection.for_callers(owner, drift.tuple.subject)


async def _on_their_way(
    tx: SystemTransaction, before: Mapping[TenantId, tuple[Seq, Seq]], differing: Sequence[Tuple]
) -> set[Tuple]:
    owners = {t: projection.owner_of(t) for t in differing}
    far_behind = {id_ for id_, (head, delivered) in before.items() if head - delivered > MAX_UNDELIVERED_ROWS}
    since = {
        id_: before[id_][1] for id_ in owners.values() if id_ is not None and id_ in before and id_ not in far_behind
    }
    named = await streams.changed_since(tx, since, [str(t.plain) for t in differing]) if since else set()
    now = await streams.now(tx)
    users = {t: _user(t) for t in differing}
    with_jobs = await streams.users_with_jobs(tx, {user for user in users.values() if user is not None})
    return {
        t
        for t in differing
        if owners[t] in far_behind
        or str(t.plain) in named
        or users[t] in with_jobs
        or (t.expiration is not None and t.expiration <= now)
    }


def _user(stored: Tuple) -> UserId | None:
    if stored.subject.type != "user":
        return None
    return UserId(projection.for_callers(TenantId(""), stored.subject).id)


def _kind(is_held: bool, owner: TenantId | None) -> Kind:
    if owner is None:
        return Kind.FOREIGN
    return Kind.TOO_MUCH if is_held else Kind.MISSING
