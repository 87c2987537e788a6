"""Takes an import back: what it made goes, children first, and what it changed is set back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

from pemba.cli.failure import CallFailed
from pemba.cli.importing.applying import Applying, object_ref, subject_ref
from pemba.cli.importing.calls import call
from pemba.cli.importing.fields import Given
from pemba.cli.importing.journal import BEFORE, Row
from pemba.cli.importing.lines import Kind
from pemba.cli.importing.tenant import role_number
from pemba.v1 import groups_pb2, memberships_pb2, shares_pb2, tenants_pb2, users_pb2, workspaces_pb2

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.importing.journal import Journal
    from pemba.cli.progress import Progress

# A role on the tenant goes last: with it everything of a user in the tenant would, and guards would hold it.
_ORDER = (
    (Kind.SHARE, "r.kind = 'share'"),
    (Kind.MEMBER, "r.kind = 'member' AND r.name <> 'tenant'"),
    (Kind.GROUP_MEMBER, "r.kind = 'group_member'"),
    (Kind.GROUP, "r.kind = 'group'"),
    (Kind.WORKSPACE, "r.kind = 'workspace'"),
    (Kind.MEMBER, "r.kind = 'member' AND r.name = 'tenant'"),
    (Kind.USER, "r.kind = 'user'"),
    (Kind.TENANT, "r.kind = 'tenant'"),
)


def settle(pemba: Connection, journal: Journal) -> None:
    """Send the next call of an import that was cut off: perhaps it was carried out, and nobody noted it.

    It is undone with the rest.  One that is refused was not carried out, and changes nothing.
    """
    try:
        Applying(pemba, journal).step()
    except CallFailed as error:
        if error.problem.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            raise


class Undoing:
    """Carries out what `plan_undo` noted."""

    def __init__(self, pemba: Connection, journal: Journal) -> None:
        self._pemba = pemba
        self._journal = journal
        self._remove = {
            Kind.SHARE: self._revoke_share,
            Kind.MEMBER: self._remove_member,
            Kind.GROUP_MEMBER: self._remove_group_member,
            Kind.GROUP: self._delete_group,
            Kind.WORKSPACE: self._delete_workspace,
        }
        self._set_back = {
            Kind.MEMBER: self._set_role_back,
            Kind.GROUP_MEMBER: self._set_manager_back,
            Kind.GROUP: self._set_group_back,
            Kind.WORKSPACE: self._set_workspace_back,
            Kind.USER: self._set_user_back,
            Kind.TENANT: self._set_tenant_back,
        }

    def run(self, progress: Progress) -> None:
        """All of it.  Raises CallFailed, which names the line; called again it goes on."""
        for kind, which in _ORDER:
            progress.step(f"taking back: {kind}")
            to_do = f"WHERE {which} AND r.done = 1 AND r.undo IN ('remove', 'set back') ORDER BY r.place DESC, r.n"
            count = 0
            while rows := self._journal.records(to_do):
                for row in rows:
                    self._take_back(row)
                count += len(rows)
                progress.progress(f"taking back: {kind}, {count} so far")
        self._journal.run("UPDATE records SET done = 2 WHERE done = 1")
        self._journal.commit()

    def _take_back(self, row: Row) -> None:
        take_back = (self._remove if row.action == "make" else self._set_back)[row.kind]
        try:
            take_back(row)
        except CallFailed as error:
            if error.problem.code != "NOT_FOUND":  # else it is gone already
                raise
        self._journal.run("UPDATE records SET done = 2 WHERE n = ?", row.n)
        self._journal.commit()

    def _call(self, rpc: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any, row: Row) -> None:
        request.tenant_id = self._journal.get("tenant_id")
        self._send(rpc, request, row)

    def _send(self, rpc: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any, row: Row) -> None:
        request.request_id = f"undo:{self._journal.get('run')}:{row.n}"
        call(self._pemba, rpc, request)

    def _had(self, row: Row) -> Given:
        """What the record had before."""
        sql = "SELECT has FROM present WHERE at = ? AND kind = ? AND name = ? AND other = ?"
        had: Given = json.loads(self._journal.one(sql, BEFORE, row.kind, row.name, row.other))
        return {field: had[field] for field in row.given if field in had}

    def _revoke_share(self, row: Row) -> None:
        self._call(self._pemba.shares.RevokeShare, shares_pb2.RevokeShareRequest(share_id=row.id, etag=row.etag), row)

    def _remove_member(self, row: Row) -> None:
        request = memberships_pb2.RemoveMemberRequest(
            object=object_ref(self._journal, row.name), subject=subject_ref(self._journal, row.other), etag=row.etag
        )
        self._call(self._pemba.memberships.RemoveMember, request, row)

    def _remove_group_member(self, row: Row) -> None:
        request = groups_pb2.RemoveGroupMemberRequest(
            group_id=self._journal.id_of(Kind.GROUP, row.name), subject=subject_ref(self._journal, row.other)
        )
        self._call(self._pemba.groups.RemoveGroupMember, request, row)

    def _delete_group(self, row: Row) -> None:
        self._call(self._pemba.groups.DeleteGroup, groups_pb2.DeleteGroupRequest(group_id=row.id), row)

    def _delete_workspace(self, row: Row) -> None:
        request = workspaces_pb2.DeleteWorkspaceRequest(workspace_id=row.id, etag=row.etag)
        self._call(self._pemba.workspaces.DeleteWorkspace, request, row)

    def _set_role_back(self, row: Row) -> None:
        request = memberships_pb2.SetRoleRequest(
            object=object_ref(self._journal, row.name),
            subject=subject_ref(self._journal, row.other),
            role=role_number(self._had(row)["role"]),
            etag=row.etag,
        )
        self._call(self._pemba.memberships.SetRole, request, row)

    def _set_manager_back(self, row: Row) -> None:
        request = groups_pb2.AddGroupMemberRequest(
            group_id=self._journal.id_of(Kind.GROUP, row.name),
            subject=subject_ref(self._journal, row.other),
            manager=bool(self._had(row)["manager"]),
        )
        self._call(self._pemba.groups.AddGroupMember, request, row)

    def _set_group_back(self, row: Row) -> None:
        request = groups_pb2.UpdateGroupRequest(group_id=row.id, **self._had(row))  # type: ignore[arg-type]  # texts
        self._call(self._pemba.groups.UpdateGroup, request, row)

    def _set_workspace_back(self, row: Row) -> None:
        request = workspaces_pb2.UpdateWorkspaceRequest(workspace_id=row.id, etag=row.etag, **self._had(row))  # type: ignore[arg-type]  # texts
        self._call(self._pemba.workspaces.UpdateWorkspace, request, row)

    def _set_user_back(self, row: Row) -> None:
        request = users_pb2.UpdateUserRequest(user_id=row.name, etag=row.etag, **self._had(row))  # type: ignore[arg-type]  # texts
        self._send(self._pemba.users.UpdateUser, request, row)

    def _set_tenant_back(self, row: Row) -> None:
        request = tenants_pb2.UpdateTenantRequest(etag=row.etag, **self._had(row))  # type: ignore[arg-type]  # texts
        self._call(self._pemba.tenants.UpdateTenant, request, row)
