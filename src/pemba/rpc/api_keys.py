"""ApiKeyService."""

from __future__ import annotations

from pemba.model import Scope, TenantId
from pemba.rpc import records
from pemba.rpc.context import Call
from pemba.rpc.validation import Fields
from pemba.service.api_keys import MAX_OVERLAP, ApiKeyService, Wanted
from pemba.v1.api_keys_pb2 import (
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    GetApiKeyRequest,
    GetApiKeyResponse,
    ListApiKeysRequest,
    ListApiKeysResponse,
    RevokeApiKeyRequest,
    RevokeApiKeyResponse,
    RotateApiKeyRequest,
    RotateApiKeyResponse,
)


class ApiKeys:
    def __init__(self, service: ApiKeyService) -> None:
        self._service = service

    async def create_api_key(self, request: CreateApiKeyRequest, call: Call) -> CreateApiKeyResponse:
        with Fields() as fields:
            wanted = _wanted(fields, request)
        issued = await self._service.create_api_key(call.caller, wanted, options=call.options(request))
        changed = issued.changed
        return CreateApiKeyResponse(
            api_key=records.api_key(changed.record),
            secret=issued.secret,
            token=changed.token,
            replayed=changed.replayed,
        )

    async def get_api_key(self, request: GetApiKeyRequest, call: Call) -> GetApiKeyResponse:
        with Fields() as fields:
            tenant_id = _tenant_id(fields, request.tenant_id)
            api_key_id = fields.api_key_id("api_key_id", request.api_key_id)
        found = await self._service.get_api_key(call.caller, tenant_id, api_key_id)
        return GetApiKeyResponse(api_key=records.api_key(found.record), token=found.token)

    async def list_api_keys(self, request: ListApiKeysRequest, call: Call) -> ListApiKeysResponse:
        with Fields() as fields:
            tenant_id = _tenant_id(fields, request.tenant_id)
            user_id = fields.optional_user_id("user_id", request.user_id)
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_api_keys(
            call.caller,
            tenant_id,
            user_id=user_id,
            include_revoked=request.include_revoked,
            page_size=page_size,
            page_token=request.page_token,
        )
        return ListApiKeysResponse(
            api_keys=[records.api_key(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def revoke_api_key(self, request: RevokeApiKeyRequest, call: Call) -> RevokeApiKeyResponse:
        with Fields() as fields:
            tenant_id = _tenant_id(fields, request.tenant_id)
            api_key_id = fields.api_key_id("api_key_id", request.api_key_id)
        changed = await self._service.revoke_api_key(call.caller, tenant_id, api_key_id, options=call.options(request))
        return RevokeApiKeyResponse(
            api_key=records.api_key(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def rotate_api_key(self, request: RotateApiKeyRequest, call: Call) -> RotateApiKeyResponse:
        with Fields() as fields:
            tenant_id = _tenant_id(fields, request.tenant_id)
            api_key_id = fields.api_key_id("api_key_id", request.api_key_id)
            overlap = fields.span("overlap", request.overlap, MAX_OVERLAP)
        issued = await self._service.rotate_api_key(
            call.caller, tenant_id, api_key_id, overlap=overlap, options=call.options(request)
        )
        changed = issued.changed
        return RotateApiKeyResponse(
            api_key=records.api_key(changed.record),
            secret=issued.secret,
            token=changed.token,
            replayed=changed.replayed,
        )


def _tenant_id(fields: Fields, value: str) -> TenantId | None:
    return fields.tenant_id("tenant_id", value) if value else None


def _wanted(fields: Fields, request: CreateApiKeyRequest) -> Wanted:
    tenant_id = _tenant_id(fields, request.tenant_id)
    user_id = fields.optional_user_id("user_id", request.user_id)
    scopes = fields.scopes("scopes", request.scopes)
    if user_id is not None and Scope.ACT_AS in scopes:
        fields.wrong("scopes", "takes no act_as with user_id: a user's key acts for its user alone")
    if request.workspace_id and tenant_id is None:
        fields.wrong("workspace_id", "takes a workspace of the tenant that tenant_id names; leave it empty without one")
    return Wanted(
        tenant_id=tenant_id,
        user_id=user_id,
        workspace_id=fields.workspace_id("workspace_id", request.workspace_id) if request.workspace_id else None,
        name=fields.name("name", request.name),
        scopes=scopes,
        expire_time=fields.time("expire_time", request.expire_time) if request.HasField("expire_time") else None,
    )
