"""Makes and changes what an import is to make and to change: one ordinary call after the other.

Each call goes under a request id of its own, which its first line has in this import, and says what the journal says:
sent again after a crash it is the same call, and Pemba carries it out once.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc

from pemba.cli.failure import CallFailed
from pemba.cli.importing.calls import call
from pemba.cli.importing.journal import BEFORE, Row
from pemba.cli.importing.lines import Kind
from pemba.cli.importing.preflight import ROLES_OF_A_CALL
from pemba.cli.importing.tenant import role_number
from pemba.v1 import (
    groups_pb2,
    memberships_pb2,
    shares_pb2,
    tenants_pb2,
    types_pb2,
    users_pb2,
    workspaces_pb2,
)

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.importing.journal import Journal
    from pemba.cli.progress import Progress

MAX_SET_MEMBERS = 10_000
MAX_SET_BYTES = 2 * 1024 * 1024

Answered = tuple[str, str, str]
"""Id, etag and token."""


class Applying:
    """Carries out a journal's plan, from where it stands."""

    def __init__(self, pemba: Connection, journal: Journal) -> None:
        self._pemba = pemba
        self._journal = journal
        self._send = {
            Kind.TENANT: self._tenant,
            Kind.USER: self._user,
            Kind.WORKSPACE: self._workspace,
            Kind.GROUP: self._group,
            Kind.GROUP_MEMBER: self._group_member,
            Kind.SHARE: self._share,
        }

    def run(self, progress: Progress) -> None:
        """All of it.  Raises CallFailed, which names the line; what was done stays, and can be resumed or undone."""
        for kind in Kind:
            total = self._journal.one("SELECT count(*) FROM records WHERE kind = ? AND done = 0", kind)
            done = 0
            while taken := self._step(kind):
                done += taken
                progress.progress(f"{kind}: {done} of {total}")

    def step(self) -> bool:
        """The next call alone; False where there is none."""
        return any(self._step(kind) for kind in Kind)

    def _step(self, kind: Kind) -> int:
        """One call of this kind: how many lines it was about."""
        rows = self._next(kind)
        if rows:
            with _naming(rows):
                self._carry_out(kind, rows)
            self._journal.commit()
        return len(rows)

    def _next(self, kind: Kind) -> list[Row]:
        """The lines of the next call, which are the same each time that it is asked for."""
        rows = self._journal.records("WHERE r.kind = ? AND r.done = 0 ORDER BY r.place, r.n", kind, limit=1)
        if rows and kind is Kind.MEMBER:
            batch = "WHERE r.kind = ? AND r.done = 0 AND r.batch = ? ORDER BY r.place, r.n"
            return self._journal.records(batch, kind, rows[0].batch, limit=ROLES_OF_A_CALL)
        if rows and kind is Kind.GROUP_MEMBER and self._is_set_at_once(rows[0].name):
            group = "WHERE r.kind = ? AND r.done = 0 AND r.name = ? ORDER BY r.n"
            return self._journal.records(group, kind, rows[0].name, limit=MAX_SET_MEMBERS)
        return rows

    def _carry_out(self, kind: Kind, rows: list[Row]) -> None:
        if kind is Kind.MEMBER:
            self._set_roles(rows)
        elif kind is Kind.GROUP_MEMBER and self._is_set_at_once(rows[0].name):
            self._set_members(rows)
        else:
            self._done(rows[0], *self._send[kind](rows[0]))

    def _done(self, row: Row, id_: str, etag: str, token: str) -> None:
        self._journal.run("UPDATE records SET done = 1, id = ?, etag = ? WHERE n = ?", id_, etag, row.n)
        if token:
            self._journal.note(token=token)

    def _call(self, rpc: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any, row: Row) -> Any:
        request.request_id = f"import:{self._journal.get('run')}:{row.n}"
        return call(self._pemba, rpc, request)

    @property
    def _tenant_id(self) -> str:
        return self._journal.get("tenant_id")

    # -- one line a call ---------------------------------------------------------------------------------

    def _tenant(self, row: Row) -> Answered:
        name = str(row.given.get("name", row.name))
        if row.action == "change":
            change = tenants_pb2.UpdateTenantRequest(tenant_id=row.id, name=name, etag=row.etag)
            updated = self._call(self._pemba.tenants.UpdateTenant, change, row)
            return updated.tenant.id, updated.tenant.etag, updated.token
        make = tenants_pb2.CreateTenantRequest(slug=row.name, name=name, first_admin=str(row.given["first_admin"]))
        answer = self._call(self._pemba.tenants.CreateTenant, make, row)
        self._journal.note(tenant_id=answer.tenant.id)
        self._journal.run(
            "UPDATE present SET id = ? WHERE at = ? AND kind = 'workspace' AND name = ''",
            *(answer.root_workspace.id, BEFORE),
        )
        return answer.tenant.id, answer.tenant.etag, answer.token

    def _user(self, row: Row) -> Answered:
        fields = {field: str(value) for field, value in row.given.items()}
        if row.action == "change":
            change = users_pb2.UpdateUserRequest(user_id=row.name, etag=row.etag, **fields)  # type: ignore[arg-type]  # texts
            user = self._call(self._pemba.users.UpdateUser, change, row).user
        else:
            make = users_pb2.CreateUserRequest(id=row.name, **fields)  # type: ignore[arg-type]  # texts
            user = self._call(self._pemba.users.CreateUser, make, row).user
        return user.id, user.etag, ""

    def _workspace(self, row: Row) -> Answered:
        above, _, slug = row.name.rpartition("/")
        name = str(row.given.get("name", slug))
        if row.action == "change":
            change = workspaces_pb2.UpdateWorkspaceRequest(
                tenant_id=self._tenant_id, workspace_id=row.id, name=name, etag=row.etag
            )
            answer = self._call(self._pemba.workspaces.UpdateWorkspace, change, row)
        else:
            parent = self._journal.id_of(Kind.WORKSPACE, above)
            make = workspaces_pb2.CreateWorkspaceRequest(
                tenant_id=self._tenant_id, parent_id=parent, slug=slug, name=name
            )
            answer = self._call(self._pemba.workspaces.CreateWorkspace, make, row)
        return answer.workspace.id, answer.workspace.etag, answer.token

    def _group(self, row: Row) -> Answered:
        fields = {field: str(value) for field, value in row.given.items()}
        if row.action == "change":
            change = groups_pb2.UpdateGroupRequest(tenant_id=self._tenant_id, group_id=row.id, etag=row.etag, **fields)  # type: ignore[arg-type]  # texts
            answer = self._call(self._pemba.groups.UpdateGroup, change, row)
        else:
            fields = {"name": row.name, **fields}
            make = groups_pb2.CreateGroupRequest(tenant_id=self._tenant_id, slug=row.name, **fields)  # type: ignore[arg-type]  # texts
            answer = self._call(self._pemba.groups.CreateGroup, make, row)
        return answer.group.id, answer.group.etag, answer.token

    def _group_member(self, row: Row) -> Answered:
        request = groups_pb2.AddGroupMemberRequest(
            tenant_id=self._tenant_id,
            group_id=self._journal.id_of(Kind.GROUP, row.name),
            subject=subject_ref(self._journal, row.other),
            manager=bool(row.given["manager"]),
        )
        return "", "", self._call(self._pemba.groups.AddGroupMember, request, row).token

    def _share(self, row: Row) -> Answered:
        request = shares_pb2.CreateShareRequest(
            tenant_id=self._tenant_id,
            workspace=object_ref(self._journal, f"workspace:{row.name}"),
            with_workspace=object_ref(self._journal, f"workspace:{row.other}"),
            role=role_number(row.given["role"]),
        )
        if "expire_time" in row.given:
            request.expire_time.FromJsonString(str(row.given["expire_time"]))
        answer = self._call(self._pemba.shares.CreateShare, request, row)
        return answer.share.id, answer.share.etag, answer.token

    # -- many lines a call -------------------------------------------------------------------------------

    def _set_roles(self, rows: Sequence[Row]) -> None:
        request = memberships_pb2.SetRolesRequest(
            tenant_id=self._tenant_id,
            assignments=[
                memberships_pb2.RoleAssignment(
                    object=object_ref(self._journal, row.name),
                    subject=subject_ref(self._journal, row.other),
                    role=role_number(row.given["role"]),
                )
                for row in rows
            ],
        )
        answer = self._call(self._pemba.memberships.SetRoles, request, rows[0])
        for row, membership in zip(rows, answer.memberships, strict=True):
            self._done(row, "", membership.etag, answer.token)

    def _is_set_at_once(self, group: str) -> bool:
        """Whether the list of a group's members, with those that it had, fits into one call."""
        count, size = next(
            self._journal.rows(
                f"SELECT count(*), coalesce(sum(length(other)), 0) FROM ({_MEMBERS})", *(group, BEFORE, group)
            )
        )
        return bool(count <= MAX_SET_MEMBERS and size <= MAX_SET_BYTES)

    def _set_members(self, rows: Sequence[Row]) -> None:
        """Those of the lines, and with them those whom the group had: it is a change of the whole list."""
        group = rows[0].name
        request = groups_pb2.SetGroupMembersRequest(
            tenant_id=self._tenant_id,
            group_id=self._journal.id_of(Kind.GROUP, group),
            members=[
                groups_pb2.GroupMemberAssignment(subject=subject_ref(self._journal, subject), manager=bool(manager))
                for subject, manager in self._journal.rows(_MEMBERS, group, BEFORE, group)
            ],
            etag=self._journal.etag_of(Kind.GROUP, group),
        )
        answer = self._call(self._pemba.groups.SetGroupMembers, request, rows[0])
        for row in rows:
            self._done(row, "", "", answer.token)


# Of a group: those of the lines, and those whom it had and of whom no line says anything.
_MEMBERS = """
    SELECT other, json_extract(given, '$.manager') AS manager FROM records WHERE kind = 'group_member' AND name = ?
    UNION ALL
    SELECT p.other, json_extract(p.has, '$.manager') FROM present p
    WHERE p.at = ? AND p.kind = 'group_member' AND p.name = ?
        AND NOT EXISTS (
            SELECT 1 FROM records r WHERE r.kind = 'group_member' AND r.name = p.name AND r.other = p.other
        )
    ORDER BY 1
"""


def object_ref(journal: Journal, name: str) -> types_pb2.ObjectRef:
    """Of `tenant` or `workspace:PATH`."""
    kind, _, path = name.partition(":")
    id_ = journal.get("tenant_id") if kind == "tenant" else journal.id_of(Kind.WORKSPACE, path)
    return types_pb2.ObjectRef(type=kind, id=id_)


def subject_ref(journal: Journal, name: str) -> types_pb2.SubjectRef:
    """Of `user:ID` or `group:SLUG`."""
    kind, _, id_ = name.partition(":")
    if kind == "group":
        return types_pb2.SubjectRef(type=kind, id=journal.id_of(Kind.GROUP, id_), relation="member")
    return types_pb2.SubjectRef(type=kind, id=id_)


@contextmanager
def _naming(rows: Sequence[Row]) -> Generator[None]:
    """A failure names the lines of the call."""
    try:
        yield
    except CallFailed as error:
        others = f" (a call of {len(rows)} lines, of which this is the first)" if len(rows) > 1 else ""
        problem = replace(error.problem, message=f"{rows[0].where}: {rows[0].text}: {error.problem.message}{others}")
        raise CallFailed(problem) from error
