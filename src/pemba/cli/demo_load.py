"""Loads the companies of `pemba demo`, over the API as any other client would.

What is missing is added; what somebody changed since stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from pemba.cli.connection import Connection
from pemba.cli.failure import CallFailed, Problem
from pemba.cli.progress import Progress
from pemba.dev.demo import Check, Company
from pemba.v1 import memberships_pb2, permissions_pb2, tenants_pb2, types_pb2, workspaces_pb2

_ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A company that is there; `workspace_ids` by path, and how many workspaces and roles were added."""

    company: Company
    tenant_id: str
    workspace_ids: dict[str, str]
    added_workspaces: int
    added_roles: int

    def ref(self, path: str | None) -> types_pb2.ObjectRef:
        """The workspace at `path` (empty: the root), or the tenant itself."""
        if path is None:
            return types_pb2.ObjectRef(type="tenant", id=self.tenant_id)
        return types_pb2.ObjectRef(type="workspace", id=self.workspace_ids[path])


@dataclass(frozen=True, slots=True)
class Asked:
    """A check and what Pemba answered it; `why` says so where that is not what the demo is made for."""

    check: Check
    answer: str

    @property
    def why(self) -> str:
        return self.check.why if self.answer == self.check.answer else "the demo was changed since it was loaded"


def load(pemba: Connection, company: Company, progress: Progress) -> Loaded:
    """Add what `company` lacks.  Raises CallFailed, also where its slug is another's."""
    progress.step(f"{company.name}: looking what is there")
    tenant_id = _tenant(pemba, company)
    before, position = _workspaces(pemba, tenant_id)
    missing = [each for each in company.workspaces if each.path not in before]
    ids = dict(before)
    for number, workspace in enumerate(missing, 1):
        progress.progress(f"{company.name}: workspace {number} of {len(missing)}, {workspace.path}")
        above, _, slug = workspace.path.rpartition("/")
        request = workspaces_pb2.CreateWorkspaceRequest(
            tenant_id=tenant_id,
            parent_id=ids[above],
            slug=slug,
            name=workspace.name,
            request_id=_request_id(company, workspace.path, position),
        )
        ids[workspace.path] = pemba.read(pemba.workspaces.CreateWorkspace, request).workspace.id
    loaded = Loaded(company, tenant_id, ids, len(missing), 0)
    return Loaded(company, tenant_id, ids, len(missing), _add_roles(pemba, loaded, position, progress))


def ask(pemba: Connection, loaded: Sequence[Loaded], checks: Sequence[Check]) -> list[Asked]:
    """Ask the checks with everything that was loaded in force.  Raises CallFailed."""
    by_slug = {each.company.slug: each for each in loaded}
    request = permissions_pb2.BatchCheckRequest(
        items=[_item(by_slug[check.company], check) for check in checks],
        consistency=types_pb2.Consistency(fully_consistent=True),
    )
    answer = pemba.read(pemba.permissions.BatchCheck, request)
    return [Asked(check, _answer(result)) for check, result in zip(checks, answer.results, strict=True)]


def _tenant(pemba: Connection, company: Company) -> str:
    try:
        tenant = pemba.read(pemba.tenants.GetTenant, tenants_pb2.GetTenantRequest(slug=company.slug)).tenant
    except CallFailed as error:
        if error.problem.code != "NOT_FOUND":
            raise
        request = tenants_pb2.CreateTenantRequest(
            slug=company.slug,
            name=company.name,
            first_admin=company.first_admin,
            request_id=_request_id(company, "", ""),
        )
        tenant = pemba.read(pemba.tenants.CreateTenant, request).tenant
    if tenant.name != company.name:
        problem = f"the tenant {company.slug} is not the demo's: its name is {tenant.name!r} and not {company.name!r}"
        raise CallFailed(Problem("FAILED_PRECONDITION", problem))
    return tenant.id


def _workspaces(pemba: Connection, tenant_id: str) -> tuple[dict[str, str], str]:
    """The ids of a tenant's workspaces by path, and the token of the position at which that was so."""
    root = workspaces_pb2.GetWorkspaceRequest(tenant_id=tenant_id, path="")
    paths = {pemba.read(pemba.workspaces.GetWorkspace, root).workspace.id: ""}
    everything = workspaces_pb2.ListWorkspacesRequest(tenant_id=tenant_id, recursive=True, include_archived=True)
    listed = pemba.list(pemba.workspaces.ListWorkspaces, everything, "workspaces", _ALL)
    for workspace in listed.workspaces:  # parents first
        paths[workspace.id] = f"{paths[workspace.parent_id]}/{workspace.slug}".lstrip("/")
    return {path: id_ for id_, path in paths.items()}, listed.token


def _add_roles(pemba: Connection, loaded: Loaded, position: str, progress: Progress) -> int:
    progress.step(f"{loaded.company.name}: roles")
    held = {path: _members(pemba, loaded, path) for path, _, _ in loaded.company.assignments()}
    missing = [each for each in loaded.company.assignments() if each[1] not in held[each[0]]]
    if missing:
        request = memberships_pb2.SetRolesRequest(
            tenant_id=loaded.tenant_id,
            assignments=[
                memberships_pb2.RoleAssignment(
                    object=loaded.ref(path),
                    subject=types_pb2.SubjectRef(type="user", id=user),
                    role=types_pb2.Role.Value(f"ROLE_{role.upper()}"),
                )
                for path, user, role in missing
            ],
            request_id=_request_id(loaded.company, "roles", position),
        )
        pemba.read(pemba.memberships.SetRoles, request)
    return len(missing)


def _members(pemba: Connection, loaded: Loaded, path: str | None) -> set[str]:
    request = memberships_pb2.ListMembersRequest(tenant_id=loaded.tenant_id, object=loaded.ref(path))
    listed = pemba.list(pemba.memberships.ListMembers, request, "memberships", _ALL)
    return {each.subject.id for each in listed.memberships if each.subject.type == "user"}


def _request_id(company: Company, name: str, position: str) -> str:
    """Two that load at once send the same ones; what was deleted since is made anew, for the position moved."""
    return f"demo:{company.slug}:{sha256(f'{name} {position}'.encode()).hexdigest()}"


def _item(loaded: Loaded, check: Check) -> permissions_pb2.BatchCheckItem:
    kind, _, path = check.resource.partition(":")
    return permissions_pb2.BatchCheckItem(
        tenant_id=loaded.tenant_id,
        resource=loaded.ref(None if kind == "tenant" else path.strip("/")),
        permission=check.permission,
        subject=types_pb2.SubjectRef(type="user", id=check.user),
    )


def _answer(result: permissions_pb2.BatchCheckResult) -> str:
    if result.HasField("error"):
        raise CallFailed(Problem("UNAVAILABLE", result.error.message))
    return permissions_pb2.Decision.Name(result.decision).removeprefix("DECISION_")
