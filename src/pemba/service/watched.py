"""What of a change those see who watch a workspace, a user, or all of a tenant: pure.

Records are told by the fields that only their kind has; what is of no known kind is told to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pemba.model import TenantId, TupleOperation, UserId, WorkspaceId, spicedb_id
from pemba.storage.changes import ChangeRow

JsonRecord = Mapping[str, Any]

_KINDS = (
    ("group_member", {"group_id", "subject", "manager"}),
    ("membership", {"workspace_id", "subject", "role", "join_time"}),
    ("share", {"workspace_id", "with_workspace_id", "role"}),
    ("workspace", {"parent_id", "slug", "kind"}),
    ("group", {"slug", "external_id"}),
    ("tenant", {"slug", "status"}),
)
_IDENTITY = {"membership": ("workspace_id", "subject"), "group_member": ("group_id", "subject")}
_BY_ID = ("id",)


@dataclass(frozen=True, slots=True)
class RecordChange:
    """One record in JSON, None where there is none."""

    kind: str
    before: JsonRecord | None
    after: JsonRecord | None


@dataclass(frozen=True, slots=True)
class About:
    """A workspace, or a user, or (neither) all of the tenant."""

    tenant_id: TenantId
    workspace_id: WorkspaceId | None = None
    user_id: UserId | None = None

    @property
    def text(self) -> str:
        """As the audit names it; empty for all of the tenant."""
        if self.workspace_id is not None:
            return f"workspace:{self.workspace_id}"
        return "" if self.user_id is None else f"user:{self.user_id}"

    def records(self, row: ChangeRow) -> list[RecordChange]:
        """Those that the row changed, in the order in which it has them."""
        before, after = self._seen(row.before), self._seen(row.after)
        changes = (RecordChange(key[0], before.get(key), after.get(key)) for key in {**before, **after})
        return [change for change in changes if change.before != change.after]

    def operations(self, row: ChangeRow) -> list[TupleOperation]:
        """Those on the workspace, or of the user."""
        return [operation for operation in row.operations if self._touches(operation)]

    def _seen(self, records: object) -> dict[tuple[str, ...], JsonRecord]:
        found: dict[tuple[str, ...], JsonRecord] = {}
        for record in _flat(records):
            kind = next((name for name, fields in _KINDS if fields <= record.keys()), None)
            if kind is not None and self._is_about(kind, record):
                found[(kind, *(str(record[field]) for field in _IDENTITY.get(kind, _BY_ID)))] = record
        return found

    def _is_about(self, kind: str, record: JsonRecord) -> bool:
        if self.workspace_id is not None:
            fields = ("id",) if kind == "workspace" else ("workspace_id", "with_workspace_id")
            return any(record.get(field) == self.workspace_id for field in fields)
        if self.user_id is not None:
            subject = record.get("subject") or {}
            return bool(subject.get("type") == "user" and subject.get("id") == self.user_id)
        return True

    def _touches(self, operation: TupleOperation) -> bool:
        resource, subject = operation.tuple.resource, operation.tuple.subject
        if self.workspace_id is not None:
            id_ = spicedb_id(self.tenant_id, "workspace", self.workspace_id)
            return (resource.type, resource.id) == ("workspace", id_)
        if self.user_id is not None:
            return (subject.type, subject.id) == ("user", spicedb_id(self.tenant_id, "user", self.user_id))
        return True


def _flat(records: object) -> Iterator[JsonRecord]:
    if isinstance(records, dict):
        yield records
    elif isinstance(records, list):
        for each in records:
            yield from _flat(each)
