"""UserService."""

from __future__ import annotations

from pemba.model import UserId, UserStatus
from pemba.rpc import filters, records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.user_workspace import FirstWorkspace
from pemba.service.users import ORDERS, UserSearch, UserService
from pemba.v1.users_pb2 import (
    ActivateUserRequest,
    ActivateUserResponse,
    CreateUserRequest,
    CreateUserResponse,
    DeactivateUserRequest,
    DeactivateUserResponse,
    GetCurrentWorkspaceRequest,
    GetCurrentWorkspaceResponse,
    GetUserRequest,
    GetUserResponse,
    ListUserMembershipsRequest,
    ListUserMembershipsResponse,
    ListUsersRequest,
    ListUsersResponse,
    RecordLoginRequest,
    RecordLoginResponse,
    SetCurrentWorkspaceRequest,
    SetCurrentWorkspaceResponse,
    SuspendUserRequest,
    SuspendUserResponse,
    UpdateUserRequest,
    UpdateUserResponse,
)
from pemba.v1.workspaces_pb2 import WORKSPACE_KIND_PERSONAL, WORKSPACE_KIND_SHARED, WORKSPACE_KIND_UNSPECIFIED


class Users:
    def __init__(self, service: UserService) -> None:
        self._service = service

    async def create_user(self, request: CreateUserRequest, call: Call) -> CreateUserResponse:
        with Fields() as fields:
            user_id = fields.user_id("id", request.id)
            email = fields.optional_email("email", request.email)
            display_name = fields.display_name("display_name", request.display_name)
            first_workspace = _first_workspace(fields, request)
        changed = await self._service.create_user(
            call.caller,
            user_id,
            email=email,
            display_name=display_name,
            first_workspace=first_workspace,
            options=call.options(request),
        )
        user, workspace = changed.record
        return CreateUserResponse(
            user=records.user(user),
            workspace=None if workspace is None else records.workspace(workspace),
            token=changed.token,
            replayed=changed.replayed,
        )

    async def get_user(self, request: GetUserRequest, call: Call) -> GetUserResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
        found = await self._service.get_user(call.caller, user_id)
        return GetUserResponse(user=records.user(found.record), token=found.token)

    async def list_users(self, request: ListUsersRequest, call: Call) -> ListUsersResponse:
        with Fields() as fields:
            page_size = fields.page_size(request.page_size)
            search = _search(fields, request)
        page = await self._service.list_users(
            call.caller, search=search, page_size=page_size, page_token=request.page_token
        )
        return ListUsersResponse(
            users=[records.user(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def update_user(self, request: UpdateUserRequest, call: Call) -> UpdateUserResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
            changes = fields.changes(request, ("email", "display_name"))
            email = fields.optional_email("email", request.email) if "email" in changes else None
            name = fields.display_name("display_name", request.display_name) if "display_name" in changes else None
        changed = await self._service.update_user(
            call.caller, user_id, email=email, display_name=name, options=call.options(request)
        )
        return UpdateUserResponse(user=records.user(changed.record), token=changed.token, replayed=changed.replayed)

    async def suspend_user(self, request: SuspendUserRequest, call: Call) -> SuspendUserResponse:
        with Fields() as fields:
            user_id = fields.user_id("user_id", request.user_id)
        changed = await self._service.suspend_user(
            call.caller, user_id, force=request.force, options=call.options(request)
        )
        return SuspendUserResponse(user=records.user(changed.record), token=changed.token, replayed=changed.replayed)

    async def activate_user(self, request: ActivateUserRequest, call: Call) -> ActivateUserResponse:
        with Fields() as fields:
            user_id = fields.user_id("user_id", request.user_id)
        changed = await self._service.activate_user(call.caller, user_id, options=call.options(request))
        return ActivateUserResponse(user=records.user(changed.record), token=changed.token, replayed=changed.replayed)

    async def deactivate_user(self, request: DeactivateUserRequest, call: Call) -> DeactivateUserResponse:
        with Fields() as fields:
            user_id = fields.user_id("user_id", request.user_id)
        changed = await self._service.deactivate_user(call.caller, user_id, options=call.options(request))
        return DeactivateUserResponse(user=records.user(changed.record), token=changed.token, replayed=changed.replayed)

    async def list_user_memberships(
        self, request: ListUserMembershipsRequest, call: Call
    ) -> ListUserMembershipsResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_user_memberships(
            call.caller, user_id, tenant_id=tenant_id, page_size=page_size, page_token=request.page_token
        )
        return ListUserMembershipsResponse(
            memberships=[records.membership(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def set_current_workspace(
        self, request: SetCurrentWorkspaceRequest, call: Call
    ) -> SetCurrentWorkspaceResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            workspace_id = fields.workspace_id("workspace_id", request.workspace_id)
        options = call.options(request)
        changed = await self._service.set_current_workspace(
            call.caller, user_id, tenant_id, workspace_id, validate_only=options.validate_only
        )
        return SetCurrentWorkspaceResponse(workspace=records.workspace(changed.record), token=changed.token)

    async def get_current_workspace(
        self, request: GetCurrentWorkspaceRequest, call: Call
    ) -> GetCurrentWorkspaceResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None
        found = await self._service.get_current_workspace(call.caller, user_id, tenant_id=tenant_id)
        return GetCurrentWorkspaceResponse(
            workspace=records.workspace(found.record.workspace), chosen=found.record.chosen, token=found.token
        )

    async def record_login(self, request: RecordLoginRequest, call: Call) -> RecordLoginResponse:
        with Fields() as fields:
            user_id = _own_or(fields, request.user_id, call)
        options = call.options(request)
        changed = await self._service.record_login(call.caller, user_id, validate_only=options.validate_only)
        return RecordLoginResponse(user=records.user(changed.record), token=changed.token)


def _own_or(fields: Fields, user_id: str, call: Call) -> UserId:
    return fields.user_id("user_id", user_id or call.caller.acting_user or "")


def _first_workspace(fields: Fields, request: CreateUserRequest) -> FirstWorkspace | None:
    if not request.HasField("create_workspace"):
        return None
    wanted, prefix = request.create_workspace, "create_workspace."
    personal = wanted.kind == WORKSPACE_KIND_PERSONAL
    if not personal and wanted.kind not in (WORKSPACE_KIND_UNSPECIFIED, WORKSPACE_KIND_SHARED):
        fields.wrong(f"{prefix}kind", "takes WORKSPACE_KIND_SHARED or _PERSONAL; a root is made with its tenant")
    if personal and wanted.slug:
        fields.wrong(f"{prefix}slug", "a personal workspace has none: leave it empty")
    return FirstWorkspace(
        fields.tenant_id(f"{prefix}tenant_id", wanted.tenant_id),
        fields.new_slug(f"{prefix}slug", wanted.slug) if wanted.slug else "",
        fields.name(f"{prefix}name", wanted.name) if wanted.name else "",
        personal,
    )


def _search(fields: Fields, request: ListUsersRequest) -> UserSearch:
    order, descending = filters.order(request.order_by, ORDERS)
    matches = filters.text_matches(request.filter, ("status", "email", "display_name"))
    found = {(match.field, match.whole): match.text for match in matches}
    if len({match.field for match in matches}) < len(matches):
        fields.wrong("filter", "takes each field once")
    return UserSearch(
        status=_status(fields, found),
        email=found.get(("email", True)),
        email_begins=found.get(("email", False)),
        name=found.get(("display_name", True)),
        name_begins=found.get(("display_name", False)),
        order=order or "id",
        descending=descending,
    )


def _status(fields: Fields, found: dict[tuple[str, bool], str]) -> UserStatus | None:
    given = found.get(("status", True), found.get(("status", False)))
    status = next((status for status in UserStatus if status == given), None)
    if given is not None and (status is None or ("status", False) in found):
        fields.wrong("filter", f"status= takes one of {', '.join(UserStatus)}")
    return status
