"""MembershipService."""

from __future__ import annotations

from pemba.errors import invalid_field
from pemba.model import Permission, UserId
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.memberships import MAX_ASSIGNMENTS, MembershipService
from pemba.service.role_change import RoleAssignment
from pemba.v1 import memberships_pb2
from pemba.v1.memberships_pb2 import (
    GetMembershipRequest,
    GetMembershipResponse,
    ListEffectiveMembersRequest,
    ListEffectiveMembersResponse,
    ListMembersRequest,
    ListMembersResponse,
    RemoveMemberRequest,
    RemoveMemberResponse,
    SetRoleRequest,
    SetRoleResponse,
    SetRolesRequest,
    SetRolesResponse,
    TransferOwnershipRequest,
    TransferOwnershipResponse,
)


class Memberships:
    def __init__(self, service: MembershipService) -> None:
        self._service = service

    async def set_role(self, request: SetRoleRequest, call: Call) -> SetRoleResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            wanted = _assignment(fields, "", request)
        changed = await self._service.set_role(
            call.caller,
            tenant_id,
            object=wanted.object,
            subject=wanted.subject,
            role=wanted.role,
            options=call.options(request),
        )
        return SetRoleResponse(
            membership=records.membership(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def set_roles(self, request: SetRolesRequest, call: Call) -> SetRolesResponse:
        if not 0 < len(request.assignments) <= MAX_ASSIGNMENTS:
            raise invalid_field("assignments", f"takes 1 to {MAX_ASSIGNMENTS}")
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            assignments = [
                _assignment(fields, f"assignments[{i}].", assignment)
                for i, assignment in enumerate(request.assignments)
            ]
        changed = await self._service.set_roles(
            call.caller, tenant_id, assignments=assignments, options=call.options(request)
        )
        return SetRolesResponse(
            memberships=[records.membership(record) for record in changed.record],
            token=changed.token,
            replayed=changed.replayed,
        )

    async def get_membership(self, request: GetMembershipRequest, call: Call) -> GetMembershipResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            object_ = fields.object("object", request.object)
            subject = fields.holder("subject", request.subject)
        found = await self._service.get_membership(call.caller, tenant_id, object=object_, subject=subject)
        return GetMembershipResponse(membership=records.membership(found.record), token=found.token)

    async def remove_member(self, request: RemoveMemberRequest, call: Call) -> RemoveMemberResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            object_ = fields.object("object", request.object)
            subject = fields.holder("subject", request.subject)
            transfer_to = fields.optional_user_id("transfer_to", request.transfer_to)
        changed = await self._service.remove_member(
            call.caller,
            tenant_id,
            object=object_,
            subject=subject,
            allow_missing=request.allow_missing,
            transfer_to=transfer_to,
            options=call.options(request),
        )
        removed = None if changed.record is None else records.membership(changed.record)
        return RemoveMemberResponse(membership=removed, token=changed.token, replayed=changed.replayed)

    async def transfer_ownership(self, request: TransferOwnershipRequest, call: Call) -> TransferOwnershipResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            object_ = fields.object("object", request.object)
            from_user = _from_user(fields, request, call)
            to_user = fields.user_id("to_user", request.to_user)
            if object_.type == "tenant":
                fields.wrong("object.type", "takes `workspace`; a tenant has admins and no owner")
        changed = await self._service.transfer_ownership(
            call.caller,
            tenant_id,
            object=object_,
            from_user=from_user,
            to_user=to_user,
            options=call.options(request),
        )
        return TransferOwnershipResponse(
            memberships=[records.membership(record) for record in changed.record],
            token=changed.token,
            replayed=changed.replayed,
        )

    async def list_members(self, request: ListMembersRequest, call: Call) -> ListMembersResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            object_ = fields.object("object", request.object)
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_members(
            call.caller, tenant_id, object=object_, page_size=page_size, page_token=request.page_token
        )
        return ListMembersResponse(
            memberships=[records.membership(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def list_effective_members(
        self, request: ListEffectiveMembersRequest, call: Call
    ) -> ListEffectiveMembersResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            object_ = fields.object("object", request.object)
            permission = fields.permission("permission", object_.type, request.permission or Permission.VIEW)
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_effective_members(
            call.caller,
            tenant_id,
            object=object_,
            permission=Permission(permission),
            page_size=page_size,
            page_token=request.page_token,
        )
        return ListEffectiveMembersResponse(
            effective_members=[records.effective_member(member) for member in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
            reason=records.REASONS[page.reason],
        )


def _assignment(
    fields: Fields, prefix: str, message: SetRoleRequest | memberships_pb2.RoleAssignment
) -> RoleAssignment:
    object_ = fields.object(f"{prefix}object", message.object)
    subject = fields.holder(f"{prefix}subject", message.subject)
    return RoleAssignment(object_, subject, fields.role(f"{prefix}role", object_.type, message.role, subject.type))


def _from_user(fields: Fields, request: TransferOwnershipRequest, call: Call) -> UserId:
    return fields.user_id("from_user", request.from_user or call.caller.acting_user or "")
