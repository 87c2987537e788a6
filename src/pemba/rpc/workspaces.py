"""WorkspaceService."""

from __future__ import annotations

from pemba.errors import Reason, invalid_field
from pemba.model import PERMISSIONS, Permission, TenantId, UserId, WorkspaceId, WorkspaceKind
from pemba.rpc import filters, records
from pemba.rpc.context import WORKSPACE, Call
from pemba.rpc.records import REASONS
from pemba.rpc.settings import SettingsMethods
from pemba.rpc.validation import Fields
from pemba.service.settings import SettingsService
from pemba.service.workspace_search import ORDERS, Search
from pemba.service.workspaces import WorkspaceService
from pemba.v1.workspaces_pb2 import (
    WORKSPACE_KIND_PERSONAL,
    WORKSPACE_KIND_SHARED,
    WORKSPACE_KIND_UNSPECIFIED,
    ArchiveWorkspaceRequest,
    ArchiveWorkspaceResponse,
    CreateWorkspaceRequest,
    CreateWorkspaceResponse,
    DeleteWorkspaceRequest,
    DeleteWorkspaceResponse,
    EnsurePersonalWorkspaceRequest,
    EnsurePersonalWorkspaceResponse,
    GetWorkspaceRequest,
    GetWorkspaceResponse,
    ListWorkspacesRequest,
    ListWorkspacesResponse,
    MoveWorkspaceRequest,
    MoveWorkspaceResponse,
    UnarchiveWorkspaceRequest,
    UnarchiveWorkspaceResponse,
    UpdateWorkspaceRequest,
    UpdateWorkspaceResponse,
)


class Workspaces(SettingsMethods):
    def __init__(self, service: WorkspaceService, settings: SettingsService) -> None:
        super().__init__(settings)
        self._service = service

    async def create_workspace(self, request: CreateWorkspaceRequest, call: Call) -> CreateWorkspaceResponse:
        if request.kind == WORKSPACE_KIND_PERSONAL:
            return await self._create_personal(request, call)
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            parent_id = fields.workspace_id("parent_id", request.parent_id)
            slug = fields.new_slug("slug", request.slug)
            name = fields.name("name", request.name)
            owner = fields.optional_user_id("owner", request.owner)
            _require_shared(fields, request)
        changed = await self._service.create_workspace(
            call.caller,
            tenant_id,
            parent_id=parent_id,
            slug=slug,
            name=name,
            owner=owner,
            options=call.options(request),
        )
        return CreateWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def _create_personal(self, request: CreateWorkspaceRequest, call: Call) -> CreateWorkspaceResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            user_id = fields.user_id("personal_user_id", request.personal_user_id or call.caller.acting_user or "")
            name = fields.name("name", request.name) if request.name else ""
            for field in ("parent_id", "slug"):
                if getattr(request, field):
                    fields.wrong(field, "a personal workspace has none: leave it empty")
            if request.owner not in ("", user_id):
                fields.wrong("owner", "of a personal workspace is its user: leave it empty")
        changed = await self._service.create_personal_workspace(
            call.caller, tenant_id, user_id=user_id, name=name, options=call.options(request)
        )
        return CreateWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def get_workspace(self, request: GetWorkspaceRequest, call: Call) -> GetWorkspaceResponse:
        by_path = request.WhichOneof("workspace") == "path"
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            path = fields.path("path", request.path) if by_path else None
            named = request.workspace_id or call.workspace_id or ""
            workspace_id = None if by_path else fields.workspace_id("workspace_id", named)
        found = await self._service.get_workspace(call.caller, tenant_id, workspace_id=workspace_id, path=path)
        if call.workspace_id not in (None, found.record.id):
            raise invalid_field("path", f"contradicts the metadata {WORKSPACE}")
        return GetWorkspaceResponse(workspace=records.workspace(found.record), token=found.token)

    async def list_workspaces(self, request: ListWorkspacesRequest, call: Call) -> ListWorkspacesResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            parent_id = fields.workspace_id("parent_id", request.parent_id) if request.parent_id else None
            page_size = fields.page_size(request.page_size)
            search = _search(fields, request)
        page = await self._service.list_workspaces(
            call.caller,
            tenant_id,
            parent_id=parent_id,
            recursive=request.recursive,
            include_archived=request.include_archived,
            page_size=page_size,
            page_token=request.page_token,
            search=search,
        )
        return ListWorkspacesResponse(
            workspaces=[records.workspace(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
            reason=REASONS[page.reason],
        )

    async def update_workspace(self, request: UpdateWorkspaceRequest, call: Call) -> UpdateWorkspaceResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
            changes = fields.changes(request, ("name", "kind", "personal_user_id"))
            name = fields.name("name", request.name) if "name" in changes else None
            kind, personal_user_id = _frozen(fields, request, changes)
        changed = await self._service.update_workspace(
            call.caller,
            tenant_id,
            workspace_id,
            name=name,
            kind=kind,
            personal_user_id=personal_user_id,
            options=call.options(request),
        )
        return UpdateWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def move_workspace(self, request: MoveWorkspaceRequest, call: Call) -> MoveWorkspaceResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
            new_parent_id = fields.workspace_id("new_parent_id", request.new_parent_id)
        changed = await self._service.move_workspace(
            call.caller, tenant_id, workspace_id, new_parent_id=new_parent_id, options=call.options(request)
        )
        return MoveWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def archive_workspace(self, request: ArchiveWorkspaceRequest, call: Call) -> ArchiveWorkspaceResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
        changed = await self._service.archive_workspace(
            call.caller, tenant_id, workspace_id, options=call.options(request)
        )
        return ArchiveWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def unarchive_workspace(self, request: UnarchiveWorkspaceRequest, call: Call) -> UnarchiveWorkspaceResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
        changed = await self._service.unarchive_workspace(
            call.caller, tenant_id, workspace_id, options=call.options(request)
        )
        return UnarchiveWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def delete_workspace(self, request: DeleteWorkspaceRequest, call: Call) -> DeleteWorkspaceResponse:
        with Fields() as fields:
            tenant_id, workspace_id = _named(fields, request)
        changed = await self._service.delete_workspace(
            call.caller, tenant_id, workspace_id, options=call.options(request)
        )
        return DeleteWorkspaceResponse(
            workspace=records.workspace(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def ensure_personal_workspace(
        self, request: EnsurePersonalWorkspaceRequest, call: Call
    ) -> EnsurePersonalWorkspaceResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            user_id = fields.user_id("user_id", request.user_id or call.caller.acting_user or "")
        changed, created = await self._service.ensure_personal_workspace(
            call.caller, tenant_id, user_id=user_id, options=call.options(request)
        )
        return EnsurePersonalWorkspaceResponse(
            workspace=records.workspace(changed.record),
            created=created,
            token=changed.token,
            replayed=changed.replayed,
        )


_Named = (
    UpdateWorkspaceRequest
    | MoveWorkspaceRequest
    | ArchiveWorkspaceRequest
    | UnarchiveWorkspaceRequest
    | DeleteWorkspaceRequest
)


def _named(fields: Fields, request: _Named) -> tuple[TenantId, WorkspaceId]:
    return (
        fields.tenant_id("tenant_id", request.tenant_id),
        fields.workspace_id("workspace_id", request.workspace_id),
    )


def _search(fields: Fields, request: ListWorkspacesRequest) -> Search:
    order, descending = filters.order(request.order_by, ORDERS)
    matches = filters.text_matches(request.filter, ("name", "slug"))
    if not request.HasField("subject") and not request.permission:
        return Search(order=order, descending=descending, matches=matches)
    subject = fields.user_subject("subject", request.subject)
    permission = fields.permission("permission", "workspace", request.permission)
    if request.include_archived:
        fields.wrong("include_archived", "goes without `subject`: checks of what is archived are DENIED")
    known = Permission(permission) if permission in PERMISSIONS["workspace"] else None
    return Search(UserId(subject.id), known, order, descending, matches)


def _require_shared(fields: Fields, request: CreateWorkspaceRequest) -> None:
    if request.kind not in (WORKSPACE_KIND_UNSPECIFIED, WORKSPACE_KIND_SHARED):
        fields.wrong("kind", "takes WORKSPACE_KIND_SHARED or _PERSONAL; a root is made with its tenant")
    if request.personal_user_id:
        fields.wrong(
            "personal_user_id", "is for personal workspaces alone: leave it empty", Reason.OWNER_ONLY_ON_PERSONAL
        )


def _frozen(
    fields: Fields, request: UpdateWorkspaceRequest, changes: set[str]
) -> tuple[WorkspaceKind | None, str | None]:
    """The kind and the user that the record is said to have; None where nothing is said."""
    everything = "*" in request.update_mask.paths
    named = [field for field in ("kind", "personal_user_id") if field in changes]
    kind: WorkspaceKind | None = None
    if "kind" in named and (request.HasField("kind") or not everything):
        kind = next((own for own, value in records.KINDS.items() if value == request.kind), None)
        if kind is None:
            fields.wrong("kind", "takes the kind that the workspace has")
    says_user = "personal_user_id" in named and (request.HasField("personal_user_id") or not everything)
    return kind, request.personal_user_id if says_user else None
