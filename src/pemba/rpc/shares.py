"""ShareService."""

from __future__ import annotations

from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.shares import ShareService
from pemba.v1.shares_pb2 import (
    SHARE_DIRECTION_INCOMING,
    SHARE_DIRECTION_OUTGOING,
    CreateShareRequest,
    CreateShareResponse,
    GetShareRequest,
    GetShareResponse,
    ListSharesRequest,
    ListSharesResponse,
    RevokeShareRequest,
    RevokeShareResponse,
)

_INCOMING: dict[int, bool] = {SHARE_DIRECTION_OUTGOING: False, SHARE_DIRECTION_INCOMING: True}


class Shares:
    def __init__(self, service: ShareService) -> None:
        self._service = service

    async def create_share(self, request: CreateShareRequest, call: Call) -> CreateShareResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            workspace_id = fields.workspace("workspace", request.workspace)
            with_workspace_id = fields.workspace("with_workspace", request.with_workspace)
            role = fields.share_role("role", request.role)
            expires = request.HasField("expire_time")
            expire_time = fields.time("expire_time", request.expire_time) if expires else None
        changed = await self._service.create_share(
            call.caller,
            tenant_id,
            workspace_id=workspace_id,
            with_workspace_id=with_workspace_id,
            role=role,
            expire_time=expire_time,
            options=call.options(request),
        )
        return CreateShareResponse(share=records.share(changed.record), token=changed.token, replayed=changed.replayed)

    async def revoke_share(self, request: RevokeShareRequest, call: Call) -> RevokeShareResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            share_id = fields.share_id("share_id", request.share_id)
        changed = await self._service.revoke_share(call.caller, tenant_id, share_id, options=call.options(request))
        return RevokeShareResponse(share=records.share(changed.record), token=changed.token, replayed=changed.replayed)

    async def get_share(self, request: GetShareRequest, call: Call) -> GetShareResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            share_id = fields.share_id("share_id", request.share_id)
        found = await self._service.get_share(call.caller, tenant_id, share_id)
        return GetShareResponse(share=records.share(found.record), token=found.token)

    async def list_shares(self, request: ListSharesRequest, call: Call) -> ListSharesResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            workspace_id = fields.workspace("workspace", request.workspace)
            if request.direction not in _INCOMING:
                fields.wrong("direction", "takes SHARE_DIRECTION_OUTGOING or SHARE_DIRECTION_INCOMING")
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_shares(
            call.caller,
            tenant_id,
            workspace_id=workspace_id,
            incoming=_INCOMING[request.direction],
            page_size=page_size,
            page_token=request.page_token,
        )
        return ListSharesResponse(
            shares=[records.share(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )
