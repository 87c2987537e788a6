"""InvitationService."""

from __future__ import annotations

from pemba.model import Scope, WorkspaceId
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.api_keys import Wanted
from pemba.service.invitation_answers import Answer
from pemba.service.invitations import InvitationService
from pemba.v1.invitations_pb2 import (
    AcceptInvitationRequest,
    AcceptInvitationResponse,
    CreateInvitationRequest,
    CreateInvitationResponse,
    DeclineInvitationRequest,
    DeclineInvitationResponse,
    FirstApiKey,
    GetInvitationRequest,
    GetInvitationResponse,
    ListInvitationsRequest,
    ListInvitationsResponse,
    RevokeInvitationRequest,
    RevokeInvitationResponse,
)


class Invitations:
    def __init__(self, service: InvitationService) -> None:
        self._service = service

    async def create_invitation(self, request: CreateInvitationRequest, call: Call) -> CreateInvitationResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            workspace_id = _workspace_id(fields, request)
            email = fields.optional_email("email", request.email)
            if not request.email:
                fields.wrong("email", "is required: whom to invite")
            role = fields.role("role", "workspace" if workspace_id else "tenant", request.role)
        invited = await self._service.create_invitation(
            call.caller, tenant_id, workspace_id=workspace_id, email=email, role=role, options=call.options(request)
        )
        return CreateInvitationResponse(
            invitation=records.invitation(invited.changed.record),
            token=invited.secret,
            url=invited.url,
            replayed=invited.changed.replayed,
        )

    async def accept_invitation(self, request: AcceptInvitationRequest, call: Call) -> AcceptInvitationResponse:
        with Fields() as fields:
            answer = Answer(
                user_id=fields.optional_user_id("user_id", request.user_id),
                email=fields.optional_email("email", request.email),
                display_name=fields.display_name("display_name", request.display_name),
                first_key=_first_key(fields, request.first_key) if request.HasField("first_key") else None,
            )
        accepted = await self._service.accept_invitation(
            call.caller, request.token, answer, options=call.options(request)
        )
        taken = accepted.changed.record
        return AcceptInvitationResponse(
            invitation=records.invitation(taken.invitation),
            membership=records.membership(taken.membership),
            user=records.user(taken.user),
            api_key=None if taken.api_key is None else records.api_key(taken.api_key),
            secret=accepted.secret,
            token=accepted.changed.token,
            replayed=accepted.changed.replayed,
        )

    async def decline_invitation(self, request: DeclineInvitationRequest, call: Call) -> DeclineInvitationResponse:
        with Fields() as fields:
            email = fields.optional_email("email", request.email)
        changed = await self._service.decline_invitation(
            call.caller, request.token, email=email, options=call.options(request)
        )
        return DeclineInvitationResponse(
            invitation=records.invitation(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def revoke_invitation(self, request: RevokeInvitationRequest, call: Call) -> RevokeInvitationResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            invitation_id = fields.invitation_id("invitation_id", request.invitation_id)
        changed = await self._service.revoke_invitation(
            call.caller, tenant_id, invitation_id, options=call.options(request)
        )
        return RevokeInvitationResponse(
            invitation=records.invitation(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def get_invitation(self, request: GetInvitationRequest, call: Call) -> GetInvitationResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            invitation_id = fields.invitation_id("invitation_id", request.invitation_id)
        found = await self._service.get_invitation(call.caller, tenant_id, invitation_id)
        return GetInvitationResponse(invitation=records.invitation(found.record), token=found.token)

    async def list_invitations(self, request: ListInvitationsRequest, call: Call) -> ListInvitationsResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            workspace_id = _workspace_id(fields, request)
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_invitations(
            call.caller,
            tenant_id,
            workspace_id=workspace_id,
            include_ended=request.include_ended,
            page_size=page_size,
            page_token=request.page_token,
        )
        return ListInvitationsResponse(
            invitations=[records.invitation(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )


def _workspace_id(fields: Fields, request: CreateInvitationRequest | ListInvitationsRequest) -> WorkspaceId | None:
    """None, where there is no field, is the tenant itself."""
    return fields.workspace("workspace", request.workspace) if request.HasField("workspace") else None


def _first_key(fields: Fields, key: FirstApiKey) -> Wanted:
    scopes = fields.scopes("first_key.scopes", key.scopes)
    if Scope.ACT_AS in scopes:
        fields.wrong("first_key.scopes", "takes no act_as: a user's key acts for its user alone")
    return Wanted(
        tenant_id=None,
        user_id=None,
        workspace_id=None,
        name=fields.name("first_key.name", key.name),
        scopes=scopes,
        expire_time=fields.time("first_key.expire_time", key.expire_time) if key.HasField("expire_time") else None,
    )
