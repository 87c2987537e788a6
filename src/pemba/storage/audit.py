"""Reading the audit: events of one tenant, or of `~`, in the order in which they were committed.

Whatever is looked for, a look is bounded: it goes along the index of one filter, in the order of the events, a step of
them at a time and over at most MAX_LOOKED, and says where it ended.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from asyncpg import Record

from pemba.model import Seq, TenantId, TupleOperation
from pemba.storage.database import TenantTransaction
from pemba.storage.outbox import from_json
from pemba.storage.outbox_tail import LONGEST_TRANSACTION_SECONDS
from pemba.storage.statement import Statement

MAX_LOOKED = 10_000
STEP = 500
MAX_PAGE_BYTES = 2 * 1024 * 1024
MAX_RECORDS_BYTES = 1024 * 1024
"""Of one event; larger ones are left out of it."""
NEWEST = 2**63 - 1
"""No event has a higher id."""


class Outcome(StrEnum):
    """What came of what somebody did."""

    CHANGED = "changed"
    REFUSED = "refused"
    READ = "read"


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What events are looked for; an empty field asks for nothing.

    `object` and `subject` are text, as `workspace:ws_...`; `actor` is `user:ID` or a principal.
    """

    object: str = ""
    subject: str = ""
    actor: str = ""
    method: str = ""
    request_id: str = ""
    outcome: Outcome | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event; `part` of `parts` counts from 0, and records that were too large are None."""

    id: int
    tenant_id: TenantId
    seq: Seq | None
    part: int
    parts: int
    create_time: datetime.datetime
    principal: str
    acting_user: str
    peer: str
    request_id: str
    method: str
    object: str
    about: tuple[str, ...]
    outcome: Outcome
    reason: str
    before: Any
    after: Any
    records_left_out: bool
    operations: tuple[TupleOperation, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """What was found between two ids (exclusive), and where to look on: None where there is nothing more."""

    events: tuple[AuditEvent, ...]
    more_from: int | None


def _by_object(name: str, order: str) -> str:
    return f"""
        SELECT id FROM (
            (SELECT id FROM audit WHERE tenant_id = :tenant_id AND object = {name}
                AND id > CAST(:low AS bigint) AND id < CAST(:high AS bigint) ORDER BY id {order} LIMIT :looked)
            UNION
            (SELECT audit_id FROM audit_mention WHERE tenant_id = :tenant_id AND object = {name}
                AND audit_id > CAST(:low AS bigint) AND audit_id < CAST(:high AS bigint)
                ORDER BY audit_id {order} LIMIT :looked)
        ) AS named ORDER BY id {order} LIMIT :looked
    """


def _by_column(condition: str, order: str) -> str:
    return f"""
        SELECT id FROM audit WHERE tenant_id = :tenant_id AND {condition}
            AND id > CAST(:low AS bigint) AND id < CAST(:high AS bigint) ORDER BY id {order} LIMIT :looked
    """


# The first of these that is asked for leads the look.  What an index is partial for is said with it.
_LEADS: Mapping[str, Callable[[str], str]] = {
    "request_id": partial(_by_column, "request_id = :request_id"),
    "object": partial(_by_object, ":object"),
    "subject": partial(_by_object, ":subject"),
    "acting_user": partial(_by_column, "acting_user = :acting_user AND acting_user IS NOT NULL"),
    "outcome": partial(_by_column, "outcome = :outcome AND outcome <> 'changed'"),
    "principal": partial(_by_column, "principal = :principal"),
    "method": partial(_by_column, "method = :method"),
    "": partial(_by_column, "true"),
}


def _look(lead: str, order: str, last: str) -> Statement:
    """Candidates along one index; of these, those that match all; of these, as many as a page may have."""
    return Statement(
        f"""
        WITH candidates AS MATERIALIZED ({_LEADS[lead](order)}),
        looked AS (SELECT count(*) AS looked, {last}(id) AS last_looked FROM candidates),
        matching AS (
            SELECT a.id, a.tenant_id, a.seq, a.part, a.parts, a.create_time, a.principal, a.acting_user, a.peer,
                a.request_id, a.method, a.object, a.about, a.outcome, a.reason, a.ops,
                bytes > {MAX_RECORDS_BYTES} AS records_left_out,
                CASE WHEN bytes <= {MAX_RECORDS_BYTES} THEN a.before END AS before,
                CASE WHEN bytes <= {MAX_RECORDS_BYTES} THEN a.after END AS after,
                CASE WHEN bytes <= {MAX_RECORDS_BYTES} THEN bytes ELSE 0 END
                    + octet_length(CAST(a.ops AS text)) AS size
            FROM candidates c
            CROSS JOIN LATERAL (SELECT * FROM audit WHERE tenant_id = :tenant_id AND id = c.id LIMIT 1) AS a
            CROSS JOIN LATERAL (
                SELECT coalesce(octet_length(CAST(a.before AS text)), 0)
                    + coalesce(octet_length(CAST(a.after AS text)), 0) AS bytes
            ) AS records
            WHERE (CAST(:object AS text) IN ('', a.object) OR :object = ANY (a.about))
                AND (CAST(:subject AS text) IN ('', a.object) OR :subject = ANY (a.about))
                AND CAST(:acting_user AS text) IN ('', a.acting_user)
                AND CAST(:principal AS text) IN ('', a.principal)
                AND CAST(:method AS text) IN ('', a.method)
                AND CAST(:request_id AS text) IN ('', a.request_id)
                AND CAST(:outcome AS text) IN ('', a.outcome)
                AND a.create_time >= coalesce(CAST(:since AS timestamptz), '-infinity')
                AND a.create_time < coalesce(CAST(:until AS timestamptz), 'infinity')
            ORDER BY a.id {order} LIMIT :limit
        ),
        sized AS (SELECT *, sum(size) OVER (ORDER BY id {order}) - size AS size_before FROM matching)
        SELECT looked.*, (SELECT count(*) FROM matching) AS matched, sized.*
        FROM looked LEFT JOIN sized ON size_before < CAST(:bytes AS bigint) ORDER BY id {order}
        """
    )


_NEWEST_FIRST = {lead: _look(lead, "DESC", "min") for lead in _LEADS}
_OLDEST_FIRST = {lead: _look(lead, "ASC", "max") for lead in _LEADS}
# Ids follow commits, and times are when transactions began: between the two lies no more than the longest of these.
_FROM = Statement(
    f"""
    SELECT id FROM audit WHERE tenant_id = :tenant_id
        AND create_time < CAST(:since AS timestamptz) - interval '{LONGEST_TRANSACTION_SECONDS} s'
    ORDER BY create_time DESC LIMIT 1
    """
)
_UP_TO = Statement(
    f"""
    SELECT id FROM audit WHERE tenant_id = :tenant_id
        AND create_time >= CAST(:until AS timestamptz) + interval '{LONGEST_TRANSACTION_SECONDS} s'
    ORDER BY create_time LIMIT 1
    """
)
_LAST = Statement("SELECT id FROM audit WHERE tenant_id = :tenant_id ORDER BY id DESC LIMIT 1")
_IS_THERE = Statement("SELECT id FROM audit WHERE tenant_id = :tenant_id AND id = :id")


async def look(
    tx: TenantTransaction, wanted: AuditFilter, low: int, high: int, limit: int, *, newest_first: bool
) -> Look:
    """At most `limit` events of the transaction's tenant with an id between `low` and `high` that are wanted.

    A look ends as well after MAX_LOOKED events that were looked at, and after MAX_PAGE_BYTES of what was found.
    """
    low, high = await _within_times(tx, wanted, low, high)
    named = _named(wanted)
    has_index = {**named, "outcome": "" if wanted.outcome is Outcome.CHANGED else named["outcome"]}
    lead = next((name for name in _LEADS if has_index.get(name)), "")
    is_exact = sum(map(bool, named.values())) <= bool(lead) and wanted.since is wanted.until is None
    statement = (_NEWEST_FIRST if newest_first else _OLDEST_FIRST)[lead]
    events: list[AuditEvent] = []
    size = looked = 0
    while looked < MAX_LOOKED:
        # Where all that is looked at is wanted, there is no need to look at more than that.
        step = min(STEP, limit - len(events) + 1 if is_exact else STEP)
        records = await statement.rows(
            tx,
            tenant_id=tx.tenant_id,
            low=low,
            high=high,
            since=wanted.since,
            until=wanted.until,
            looked=step,
            limit=limit - len(events) + 1,
            bytes=MAX_PAGE_BYTES - size,
            **named,
        )
        first, found = records[0], [record for record in records if record["id"] is not None]
        told = found[: limit - len(events)]
        events += map(_event, told)
        size += sum(record["size"] for record in told)
        if first["matched"] > len(told):
            return Look(tuple(events), events[-1].id if events else None)
        if first["looked"] < step:
            return Look(tuple(events), None)
        looked += step
        low, high = (low, first["last_looked"]) if newest_first else (first["last_looked"], high)
    return Look(tuple(events), high if newest_first else low)


def _named(wanted: AuditFilter) -> dict[str, str]:
    acting_user = wanted.actor.removeprefix("user:") if wanted.actor.startswith("user:") else ""
    return {
        "object": wanted.object,
        "subject": wanted.subject,
        "acting_user": acting_user,
        "principal": "" if acting_user else wanted.actor,
        "method": wanted.method,
        "request_id": wanted.request_id,
        "outcome": wanted.outcome or "",
    }


async def _within_times(tx: TenantTransaction, wanted: AuditFilter, low: int, high: int) -> tuple[int, int]:
    if wanted.since is not None:
        before = await _FROM.row(tx, tenant_id=tx.tenant_id, since=wanted.since)
        low = low if before is None else max(low, before["id"])
    if wanted.until is not None:
        after = await _UP_TO.row(tx, tenant_id=tx.tenant_id, until=wanted.until)
        high = high if after is None else min(high, after["id"])
    return low, high


async def last(tx: TenantTransaction) -> int:
    """The id of the tenant's newest event; 0 where there is none."""
    record = await _LAST.row(tx, tenant_id=tx.tenant_id)
    return 0 if record is None else int(record["id"])


async def is_there(tx: TenantTransaction, id_: int) -> bool:
    """Whether the event is kept still; the oldest go first."""
    return await _IS_THERE.row(tx, tenant_id=tx.tenant_id, id=id_) is not None


def _event(record: Record) -> AuditEvent:
    return AuditEvent(
        id=record["id"],
        tenant_id=TenantId(record["tenant_id"]),
        seq=None if record["seq"] is None else Seq(record["seq"]),
        part=record["part"],
        parts=record["parts"],
        create_time=record["create_time"],
        principal=record["principal"],
        acting_user=record["acting_user"] or "",
        peer=record["peer"],
        request_id=record["request_id"],
        method=record["method"],
        object=record["object"],
        about=tuple(record["about"]),
        outcome=Outcome(record["outcome"]),
        reason=record["reason"] or "",
        before=record["before"],
        after=record["after"],
        records_left_out=record["records_left_out"],
        operations=from_json(record["ops"]),
    )
