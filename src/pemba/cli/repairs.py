"""What `pemba repair` looks at and mends, part by part; what a person must decide is told with what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pemba.cli.diagnosis import Level, examine
from pemba.cli.outbox import database_url
from pemba.model import TenantId
from pemba.service.record_repair import AUTOMATIC, RecordRepair
from pemba.storage.database import SYSTEM_ROLE, Database
from pemba.storage.invariants import Broken, Finding
from pemba.v1 import operations_pb2

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.progress import Progress

_MOST = 1000
_FIRST = ("settings", "API", "key", "PostgreSQL")
"""Parts without which nothing else can be told."""

IN_WORDS = {
    Broken.PERSONAL_STRANGER: ("on a personal workspace {detail}", "the role is taken away"),
    Broken.PERSONAL_WITHOUT_OWNER: ("{detail} is not the owner of their personal workspace", "they become it"),
    Broken.PERSONAL_SHARED: ("a personal workspace is shared: {detail}", "the share is revoked"),
    Broken.PERSONAL_CHILDREN: (
        "a personal workspace has a child, {detail}",
        "where does it belong? `pemba workspace move` it there, or delete it",
    ),
    Broken.PERSONAL_TWICE: ("has more than one personal workspace: {detail}", "which is to stay? delete the others"),
    Broken.PERSONAL_OF_NOBODY: (
        "is the personal workspace of {detail}, who is deactivated",
        "`pemba workspace delete` it, once nobody needs what is in it",
    ),
    Broken.HEAD_MISSING: ("the tenant's stream has no head: nothing of it can be changed", "it goes on where it was"),
    Broken.JOB_MISSING: ("a change of status ({detail}) was not carried out to its end", "the relay does it"),
    Broken.ROOT_MISSING: ("the tenant has no root workspace", "restore it from a backup: no command makes one"),
    Broken.ADMIN_MISSING: (
        "the tenant has no active admin",
        "who is to be one? `pemba member set tenant:{slug} user:ID admin --tenant {slug}`, or activate one",
    ),
    Broken.TREE_BROKEN: (
        "no way leads up from it to the root ({detail})",
        "where does it belong? `pemba workspace move` it there",
    ),
    Broken.ARCHIVE_BROKEN: (
        "is in use below an archived workspace ({detail})",
        "archive it, or unarchive what is above it: `pemba workspace archive`, `pemba workspace unarchive`",
    ),
}  # fmt: skip
"""What is told of each, and what is done about it (by whom is in AUTOMATIC)."""


class State(StrEnum):
    REPAIRED = "repaired"
    TO_REPAIR = "to repair"
    """`--apply` does."""
    PERSON = "decide"
    """A person must."""


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that is not as it should be."""

    state: State
    part: str
    about: str
    """`workspace:ws_...`, or empty for the part as a whole."""
    message: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def environment(endpoint: str, seconds: float) -> tuple[list[Repair], bool]:
    """What `pemba doctor` finds that no command repairs; whether the records and SpiceDB can be looked at."""
    _, findings = examine(endpoint, seconds)
    wrong = [f for f in findings if f.level is not Level.OK and f.subject != "parked operations"]
    wrong = [f for f in wrong if (f.subject, f.level) != ("SpiceDB", Level.WARNING)]  # the API answers for it
    found = [Repair(State.PERSON, f.subject, "", f.message, f.to_do) for f in wrong]
    return found, not any(f.subject in _FIRST for f in wrong)


def records(tenant_id: str, *, apply: bool) -> list[Repair]:
    """Records that break what must hold of them; of one tenant, or of all.  Raises ConfigError, PembaError."""
    return asyncio.run(_records(TenantId(tenant_id) if tenant_id else None, apply=apply))


async def _records(tenant_id: TenantId | None, *, apply: bool) -> list[Repair]:
    database = Database(database_url(), 1, (SYSTEM_ROLE,))
    await database.open()
    try:
        repair = RecordRepair(database)
        return [await _one(repair, finding, apply=apply) for finding in await repair.find(tenant_id, _MOST)]
    finally:
        await database.close()


async def _one(repair: RecordRepair, finding: Finding, *, apply: bool) -> Repair:
    if finding.broken not in AUTOMATIC:
        state = State.PERSON
    elif apply:
        await repair.repair(finding)  # several findings may be of one workspace: the first repairs them all
        state = State.REPAIRED
    else:
        state = State.TO_REPAIR
    message, remedy = (
        text.format(detail=finding.detail, slug=finding.tenant_slug) for text in IN_WORDS[finding.broken]
    )
    where = f" (tenant {finding.tenant_slug})" if finding.tenant_slug else ""
    return Repair(state, "records", finding.about, f"{message}{where}", remedy)


def parked(pemba: Connection, tenant_id: str, *, apply: bool) -> Iterator[Repair]:
    """What SpiceDB refused, tried again."""
    request = operations_pb2.ListParkedOperationsRequest(tenant_id=tenant_id)
    count = len(
        pemba.list(pemba.operations.ListParkedOperations, request, "parked_operations", _MOST).parked_operations
    )
    if count:
        if apply:
            retry = operations_pb2.RetryParkedRequest(tenant_id=tenant_id)
            pemba.read(pemba.operations.RetryParked, retry)
        state = State.REPAIRED if apply else State.TO_REPAIR
        message = f"SpiceDB refused {count}{' or more' if count == _MOST else ''} operations"
        yield Repair(
            state, "parked", "", message, "they are tried again; `pemba outbox parked` lists what is refused then"
        )


def drift(
    pemba: Connection, tenant_id: str, progress: Progress, *, apply: bool, max_deletions: int | None
) -> Iterator[Repair]:
    """Where SpiceDB differs from the records."""
    request = operations_pb2.ReconcileRequest(tenant_id=tenant_id, apply=apply, max_deletions=max_deletions, wait=apply)
    for message in pemba.follow(pemba.operations.Reconcile, request):
        if message.HasField("progress"):
            progress.progress(f"comparing SpiceDB with the records: {message.progress.step} {message.progress.done}")
        elif message.HasField("summary"):
            yield from _of_summary(message.summary, apply=apply)


def _of_summary(summary: operations_pb2.ReconcileSummary, *, apply: bool) -> Iterator[Repair]:
    withheld = summary.too_much if summary.deletions_withheld else 0
    differ = summary.missing + summary.too_much - withheld
    if differ:
        state = State.REPAIRED if apply else State.TO_REPAIR
        message = f"{summary.missing} tuples are missing in SpiceDB, {summary.too_much - withheld} are too much"
        yield Repair(
            state, "drift", "", message, "SpiceDB is brought to what the records say; `pemba reconcile` lists them"
        )
    if withheld:
        message = f"{withheld} tuples are too much, and {summary.max_deletions} may be deleted"
        to_do = f"is this the right database? then --max-deletions {withheld} allows it"
        yield Repair(State.PERSON, "drift", "", message, to_do)
    if summary.foreign:
        message = f"{summary.foreign} tuples are of no tenant's object; they grant nothing to anybody"
        yield Repair(State.PERSON, "drift", "", message, "`zed relationship delete` takes them away")
