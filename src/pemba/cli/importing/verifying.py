"""Whether the tenant is what an import says, once it is applied: read again, and asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pemba.cli.importing import tenant
from pemba.cli.importing.applying import object_ref, subject_ref
from pemba.cli.importing.calls import call
from pemba.cli.importing.journal import NOW
from pemba.cli.importing.lines import Complaint
from pemba.model import ROLE_PERMISSION, Role
from pemba.v1 import errors_pb2, permissions_pb2, types_pb2

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.importing.journal import Journal, Row
    from pemba.cli.progress import Progress

CHECKS = 100
"""How many of the roles of users are asked about."""

# A role on the tenant gives permissions of its own.
_ON_TENANT = {"admin": "administer", "member": "view"}


def verify(pemba: Connection, journal: Journal, progress: Progress) -> Iterator[Complaint]:
    """What the tenant lacks of the lines, and what is denied to whom they gave a role.  Raises CallFailed."""
    progress.step("verifying: reading the tenant again")
    tenant.read(pemba, journal, NOW, progress)
    differs = """
        LEFT JOIN present p ON p.at = ? AND p.kind = r.kind AND p.name = r.name AND p.other = r.other
        WHERE p.has IS NULL OR NOT covers(p.has, json_remove(r.given, '$.first_admin')) ORDER BY r.n
    """
    for row in journal.stream(differs, NOW):
        yield Complaint(row.file, row.line, "", f"{row.text} is not there as the line says; was it changed meanwhile?")
    progress.step("verifying: asking checks with the last token")
    yield from _ask(pemba, journal)


def _ask(pemba: Connection, journal: Journal) -> Iterator[Complaint]:
    rows = _sample(journal)
    if not rows:
        return
    request = permissions_pb2.BatchCheckRequest(
        tenant_id=journal.get("tenant_id"),
        items=[_item(journal, row) for row in rows],
        consistency=types_pb2.Consistency(at_least_as_fresh=journal.get("token")),
    )
    answer = call(pemba, pemba.permissions.BatchCheck, request)
    for row, result in zip(rows, answer.results, strict=True):
        suspended = result.reason == errors_pb2.ERROR_REASON_USER_SUSPENDED
        if result.decision != permissions_pb2.DECISION_ALLOWED and not suspended:
            yield Complaint(row.file, row.line, "", f"{row.text} gives {_permission(row)}, and a check denies it")


def _sample(journal: Journal) -> list[Row]:
    """Roles of users that this import gave, from all over the files."""
    given = "r.kind = 'member' AND r.done = 1 AND r.other LIKE 'user:%'"
    count = journal.one(f"SELECT count(*) FROM records r WHERE {given}")
    every = max(1, count // CHECKS)
    numbered = f"SELECT n, row_number() OVER (ORDER BY n) AS number FROM records r WHERE {given}"
    return journal.records(f"JOIN ({numbered}) s ON s.n = r.n AND s.number % ? = 0 ORDER BY r.n", every, limit=CHECKS)


def _item(journal: Journal, row: Row) -> permissions_pb2.BatchCheckItem:
    return permissions_pb2.BatchCheckItem(
        resource=object_ref(journal, row.name), permission=_permission(row), subject=subject_ref(journal, row.other)
    )


def _permission(row: Row) -> str:
    role = str(row.given["role"])
    return _ON_TENANT[role] if row.name == "tenant" else ROLE_PERMISSION[Role(role)]
