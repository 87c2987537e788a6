"""Reads a tenant, all of it, into the journal: what an import is compared with, before and after."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any

import grpc

from pemba.cli.connection import MAX_PAGE_SIZE
from pemba.cli.importing.calls import call
from pemba.cli.importing.fields import Given, in_seconds
from pemba.cli.importing.journal import BEFORE, NOW
from pemba.cli.importing.lines import Kind
from pemba.v1 import groups_pb2, memberships_pb2, shares_pb2, tenants_pb2, types_pb2, users_pb2, workspaces_pb2

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.importing.journal import Journal
    from pemba.cli.progress import Progress


def read(pemba: Connection, journal: Journal, at: str, progress: Progress) -> None:
    """Everything of the tenant whose id the journal has noted, and the users whom the lines name.

    A page of 1,000 at a time, and a call for every workspace, group and list of shares.  Raises CallFailed.
    """
    _Reading(pemba, journal, at, progress).everything(journal.get("tenant_id"))


def read_users(pemba: Connection, journal: Journal, at: str) -> None:
    """Those whom the lines name, and those who have an email that they name."""
    named = "SELECT 1 FROM records WHERE (kind = 'user' AND name = ?) OR other = 'user:' || ?"
    emailed = "SELECT 1 FROM records WHERE kind = 'user' AND lower(json_extract(given, '$.email')) = lower(?)"
    for user in _pages(pemba, pemba.users.ListUsers, users_pb2.ListUsersRequest(), "users"):
        if journal.one(named, user.id, user.id) or (user.email and journal.one(emailed, user.email)):
            has: Given = {"email": user.email, "display_name": user.display_name}
            if user.status == users_pb2.USER_STATUS_DEACTIVATED:
                has["deactivated"] = True
            journal.saw(at, Kind.USER, user.id, "", has, user.id, user.etag)


def read_elsewhere(pemba: Connection, journal: Journal, progress: Progress) -> None:
    """What else users hold, to whom a role on the tenant was given: personal workspaces, which no list has.

    What they held before they had that role counts as there `BEFORE`.  Raises CallFailed.
    """
    given = "WHERE r.kind = 'member' AND r.name = 'tenant' AND r.other LIKE 'user:%' AND r.done = 1 AND r.n > ?"
    last = 0
    while rows := journal.records(f"{given} AND r.action = 'make' ORDER BY r.n", last):
        last = rows[-1].n
        progress.progress(f"reading what users hold, line {rows[0].line}")
        for row in rows:
            _read_held(pemba, journal, row.other)
        journal.commit()


def _read_held(pemba: Connection, journal: Journal, subject: str) -> None:
    request = users_pb2.ListUserMembershipsRequest(
        user_id=subject.removeprefix("user:"), tenant_id=journal.get("tenant_id")
    )
    held = list(_pages(pemba, pemba.users.ListUserMemberships, request, "memberships"))
    joined = next((each.join_time.ToDatetime(UTC) for each in held if each.object.type == "tenant"), None)
    for each in held:
        if each.object.type == "workspace" and journal.name_of(NOW, Kind.WORKSPACE, each.object.id) is None:
            earlier = joined is not None and each.join_time.ToDatetime(UTC) < joined
            for at in (NOW, BEFORE) if earlier else (NOW,):
                journal.saw(at, Kind.MEMBER, f"workspace:{each.object.id}", subject, {"role": role_name(each.role)})


class _Reading:
    def __init__(self, pemba: Connection, journal: Journal, at: str, progress: Progress) -> None:
        self._pemba = pemba
        self._journal = journal
        self._at = at
        self._progress = progress

    def everything(self, tenant_id: str) -> None:
        self._journal.forget(self._at)
        read_users(self._pemba, self._journal, self._at)
        self._tenant(tenant_id)
        self._workspaces(tenant_id)
        self._groups(tenant_id)
        self._journal.commit()
        for kind in (Kind.WORKSPACE, Kind.GROUP):
            ids = [row[0] for row in self._journal.rows(_IDS, self._at, kind)]
            for number, id_ in enumerate(ids, 1):
                self._progress.progress(f"reading {kind} {number} of {len(ids)}")
                self._group_members(tenant_id, id_) if kind is Kind.GROUP else self._roles_and_shares(tenant_id, id_)
                self._journal.commit()
        self._roles(tenant_id, "tenant", types_pb2.ObjectRef(type="tenant", id=tenant_id))
        self._journal.commit()

    def _tenant(self, tenant_id: str) -> None:
        request = tenants_pb2.GetTenantRequest(tenant_id=tenant_id)
        tenant = call(self._pemba, self._pemba.tenants.GetTenant, request).tenant
        self._journal.saw(self._at, Kind.TENANT, tenant.slug, "", {"name": tenant.name}, tenant.id, tenant.etag)

    def _workspaces(self, tenant_id: str) -> None:
        root = workspaces_pb2.GetWorkspaceRequest(tenant_id=tenant_id, path="")
        self._workspace("", call(self._pemba, self._pemba.workspaces.GetWorkspace, root).workspace)
        everything = workspaces_pb2.ListWorkspacesRequest(tenant_id=tenant_id, recursive=True, include_archived=True)
        for workspace in _pages(self._pemba, self._pemba.workspaces.ListWorkspaces, everything, "workspaces"):
            above = self._journal.name_of(self._at, Kind.WORKSPACE, workspace.parent_id)  # parents come first
            if above is not None:
                self._workspace(f"{above}/{workspace.slug}".lstrip("/"), workspace)

    def _workspace(self, path: str, workspace: workspaces_pb2.Workspace) -> None:
        has: Given = {"name": workspace.name}
        if workspace.HasField("archive_time"):
            has["archived"] = True
        self._journal.saw(self._at, Kind.WORKSPACE, path, "", has, workspace.id, workspace.etag)

    def _groups(self, tenant_id: str) -> None:
        request = groups_pb2.ListGroupsRequest(tenant_id=tenant_id)
        for group in _pages(self._pemba, self._pemba.groups.ListGroups, request, "groups"):
            has: Given = {"name": group.name, "external_id": group.external_id}
            self._journal.saw(self._at, Kind.GROUP, group.slug, "", has, group.id, group.etag)

    def _group_members(self, tenant_id: str, group_id: str) -> None:
        slug = self._journal.name_of(self._at, Kind.GROUP, group_id) or group_id
        request = groups_pb2.ListGroupMembersRequest(tenant_id=tenant_id, group_id=group_id)
        for member in _pages(self._pemba, self._pemba.groups.ListGroupMembers, request, "group_members"):
            has: Given = {"manager": member.manager}
            self._journal.saw(self._at, Kind.GROUP_MEMBER, slug, self._subject(member.subject), has)

    def _roles_and_shares(self, tenant_id: str, workspace_id: str) -> None:
        path = self._journal.name_of(self._at, Kind.WORKSPACE, workspace_id) or ""
        ref = types_pb2.ObjectRef(type="workspace", id=workspace_id)
        self._roles(tenant_id, f"workspace:{path}", ref)
        request = shares_pb2.ListSharesRequest(
            tenant_id=tenant_id, workspace=ref, direction=shares_pb2.SHARE_DIRECTION_OUTGOING
        )
        for share in _pages(self._pemba, self._pemba.shares.ListShares, request, "shares"):
            with_ = self._journal.name_of(self._at, Kind.WORKSPACE, share.with_workspace.id)
            if with_ is not None:
                self._journal.saw(self._at, Kind.SHARE, path, with_, _of_share(share), share.id, share.etag)

    def _roles(self, tenant_id: str, name: str, ref: types_pb2.ObjectRef) -> None:
        request = memberships_pb2.ListMembersRequest(tenant_id=tenant_id, object=ref)
        for each in _pages(self._pemba, self._pemba.memberships.ListMembers, request, "memberships"):
            has: Given = {"role": role_name(each.role)}
            self._journal.saw(self._at, Kind.MEMBER, name, self._subject(each.subject), has, etag=each.etag)

    def _subject(self, subject: types_pb2.SubjectRef) -> str:
        if subject.type == "group":
            return f"group:{self._journal.name_of(self._at, Kind.GROUP, subject.id) or subject.id}"
        return f"{subject.type}:{subject.id}"


_IDS = "SELECT id FROM present WHERE at = ? AND kind = ? ORDER BY name"


def role_name(role: types_pb2.Role.ValueType) -> str:
    return types_pb2.Role.Name(role).removeprefix("ROLE_").lower()


def role_number(name: str | bool) -> types_pb2.Role.ValueType:
    return types_pb2.Role.Value(f"ROLE_{str(name).upper()}")


def _of_share(share: shares_pb2.Share) -> Given:
    has: Given = {"role": role_name(share.role)}
    if share.HasField("expire_time"):
        has["expire_time"] = in_seconds(share.expire_time.ToDatetime(UTC))
    return has


def _pages(pemba: Connection, rpc: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any, field: str) -> Iterator[Any]:
    """Every record of a list, a page at a time."""
    request.page_size = MAX_PAGE_SIZE
    while True:
        page = call(pemba, rpc, request)
        yield from getattr(page, field)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
