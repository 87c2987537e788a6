"""GroupService."""

from __future__ import annotations

from pemba.errors import invalid_field
from pemba.model import GroupId, SubjectRef, TenantId
from pemba.rpc import filters, records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.groups import FIELDS, MAX_SET_MEMBERS, GroupSearch, GroupService
from pemba.v1.groups_pb2 import (
    AddGroupMemberRequest,
    AddGroupMemberResponse,
    CreateGroupRequest,
    CreateGroupResponse,
    DeleteGroupRequest,
    DeleteGroupResponse,
    GetGroupRequest,
    GetGroupResponse,
    ListGroupMembersRequest,
    ListGroupMembersResponse,
    ListGroupsRequest,
    ListGroupsResponse,
    RemoveGroupMemberRequest,
    RemoveGroupMemberResponse,
    SetGroupMembersRequest,
    SetGroupMembersResponse,
    UpdateGroupRequest,
    UpdateGroupResponse,
)


class Groups:
    def __init__(self, service: GroupService) -> None:
        self._service = service

    async def create_group(self, request: CreateGroupRequest, call: Call) -> CreateGroupResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            slug = fields.new_slug("slug", request.slug)
            name = fields.name("name", request.name)
            external_id = fields.external_id("external_id", request.external_id)
        changed = await self._service.create_group(
            call.caller, tenant_id, slug=slug, name=name, external_id=external_id, options=call.options(request)
        )
        return CreateGroupResponse(group=records.group(changed.record), token=changed.token, replayed=changed.replayed)

    async def get_group(self, request: GetGroupRequest, call: Call) -> GetGroupResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            by, value = _one_name(fields, request)
        found = await self._service.get_group(call.caller, tenant_id, by=by, value=value)
        return GetGroupResponse(group=records.group(found.record), token=found.token)

    async def list_groups(self, request: ListGroupsRequest, call: Call) -> ListGroupsResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            member = fields.holder("member", request.member) if request.HasField("member") else None
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            search = GroupSearch(member, filters.text_matches(request.filter, FIELDS))
        page = await self._service.list_groups(
            call.caller, tenant_id, search=search, page_size=page_size, page_token=request.page_token
        )
        return ListGroupsResponse(
            groups=[records.group(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def update_group(self, request: UpdateGroupRequest, call: Call) -> UpdateGroupResponse:
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
            changes = fields.changes(request, ("name", "external_id"))
            name = fields.name("name", request.name) if "name" in changes else None
            external_id = fields.external_id("external_id", request.external_id) if "external_id" in changes else None
        changed = await self._service.update_group(
            call.caller, tenant_id, group_id, name=name, external_id=external_id, options=call.options(request)
        )
        return UpdateGroupResponse(group=records.group(changed.record), token=changed.token, replayed=changed.replayed)

    async def delete_group(self, request: DeleteGroupRequest, call: Call) -> DeleteGroupResponse:
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
        changed = await self._service.delete_group(call.caller, tenant_id, group_id, options=call.options(request))
        return DeleteGroupResponse(group=records.group(changed.record), token=changed.token, replayed=changed.replayed)

    async def add_group_member(self, request: AddGroupMemberRequest, call: Call) -> AddGroupMemberResponse:
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
            subject = fields.member("subject", request.subject, manager=request.manager)
        changed = await self._service.add_group_member(
            call.caller,
            tenant_id,
            group_id,
            subject=subject,
            manager=request.manager,
            options=call.options(request),
        )
        return AddGroupMemberResponse(
            group_member=records.group_member(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def remove_group_member(self, request: RemoveGroupMemberRequest, call: Call) -> RemoveGroupMemberResponse:
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
            subject = fields.holder("subject", request.subject)
        changed = await self._service.remove_group_member(
            call.caller,
            tenant_id,
            group_id,
            subject=subject,
            allow_missing=request.allow_missing,
            options=call.options(request),
        )
        removed = None if changed.record is None else records.group_member(changed.record)
        return RemoveGroupMemberResponse(group_member=removed, token=changed.token, replayed=changed.replayed)

    async def set_group_members(self, request: SetGroupMembersRequest, call: Call) -> SetGroupMembersResponse:
        if len(request.members) > MAX_SET_MEMBERS:
            raise invalid_field("members", f"takes at most {MAX_SET_MEMBERS}")
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
            members = _whole_list(fields, request)
        changed = await self._service.set_group_members(
            call.caller, tenant_id, group_id, members=members, options=call.options(request)
        )
        return SetGroupMembersResponse(
            group=records.group(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def list_group_members(self, request: ListGroupMembersRequest, call: Call) -> ListGroupMembersResponse:
        with Fields() as fields:
            tenant_id, group_id = _named(fields, request)
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_group_members(
            call.caller, tenant_id, group_id, page_size=page_size, page_token=request.page_token
        )
        return ListGroupMembersResponse(
            group_members=[records.group_member(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )


_Named = (
    UpdateGroupRequest
    | DeleteGroupRequest
    | AddGroupMemberRequest
    | RemoveGroupMemberRequest
    | SetGroupMembersRequest
    | ListGroupMembersRequest
)


def _named(fields: Fields, request: _Named) -> tuple[TenantId, GroupId]:
    return fields.tenant_id("tenant_id", request.tenant_id), fields.group_id("group_id", request.group_id)


def _one_name(fields: Fields, request: GetGroupRequest) -> tuple[str, str]:
    """The column that the group is asked for by, and what is to be in it."""
    by = request.WhichOneof("group")
    if by == "slug":
        return by, fields.slug(by, request.slug)
    if by == "external_id":
        if not request.external_id:
            fields.wrong(by, "takes what another system calls the group")
        return by, fields.external_id(by, request.external_id)
    return "id", fields.group_id("group_id", request.group_id)


def _whole_list(fields: Fields, request: SetGroupMembersRequest) -> dict[SubjectRef, bool]:
    members: dict[SubjectRef, bool] = {}
    for i, given in enumerate(request.members):
        subject = fields.member(f"members[{i}].subject", given.subject, manager=given.manager)
        if subject in members:
            fields.wrong(f"members[{i}].subject", f"{subject} is there twice")
        members[subject] = given.manager
    return members
