"""TenantService."""

from __future__ import annotations

from pemba.errors import invalid_field
from pemba.rpc import records
from pemba.rpc.context import TENANT, Call
from pemba.rpc.validation import Fields
from pemba.service.tenants import TenantService
from pemba.v1.tenants_pb2 import (
    ActivateTenantRequest,
    ActivateTenantResponse,
    CreateTenantRequest,
    CreateTenantResponse,
    DeleteTenantRequest,
    DeleteTenantResponse,
    GetTenantDeletionRequest,
    GetTenantDeletionResponse,
    GetTenantRequest,
    GetTenantResponse,
    ListTenantsRequest,
    ListTenantsResponse,
    SuspendTenantRequest,
    SuspendTenantResponse,
    UpdateTenantRequest,
    UpdateTenantResponse,
)


class Tenants:
    def __init__(self, service: TenantService) -> None:
        self._service = service

    async def create_tenant(self, request: CreateTenantRequest, call: Call) -> CreateTenantResponse:
        with Fields() as fields:
            slug = fields.new_slug("slug", request.slug)
            name = fields.name("name", request.name)
            first_admin = fields.user_id("first_admin", request.first_admin)
        created = await self._service.create_tenant(
            call.caller, slug=slug, name=name, first_admin=first_admin, options=call.options(request)
        )
        return CreateTenantResponse(
            tenant=records.tenant(created.tenant),
            root_workspace=records.workspace(created.root_workspace),
            token=created.token,
            replayed=created.replayed,
        )

    async def get_tenant(self, request: GetTenantRequest, call: Call) -> GetTenantResponse:
        by_slug = request.WhichOneof("tenant") == "slug"
        with Fields() as fields:
            slug = fields.slug("slug", request.slug) if by_slug else None
            named = request.tenant_id or call.tenant_id or ""
            tenant_id = None if by_slug else fields.tenant_id("tenant_id", named)
        found = await self._service.get_tenant(call.caller, tenant_id=tenant_id, slug=slug)
        if call.tenant_id not in (None, found.record.id):
            raise invalid_field("slug", f"contradicts the metadata {TENANT}")
        return GetTenantResponse(tenant=records.tenant(found.record), token=found.token)

    async def list_tenants(self, request: ListTenantsRequest, call: Call) -> ListTenantsResponse:
        with Fields() as fields:
            page_size = fields.page_size(request.page_size)
            fields.not_supported("order_by", request.order_by)
            fields.not_supported("filter", request.filter)
        page = await self._service.list_tenants(call.caller, page_size=page_size, page_token=request.page_token)
        return ListTenantsResponse(
            tenants=[records.tenant(record) for record in page.records],
            next_page_token=page.next_page_token,
            token=page.token,
        )

    async def update_tenant(self, request: UpdateTenantRequest, call: Call) -> UpdateTenantResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            name = fields.new_name(request)
        changed = await self._service.update_tenant(call.caller, tenant_id, name=name, options=call.options(request))
        return UpdateTenantResponse(
            tenant=records.tenant(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def suspend_tenant(self, request: SuspendTenantRequest, call: Call) -> SuspendTenantResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
        changed = await self._service.suspend_tenant(call.caller, tenant_id, options=call.options(request))
        return SuspendTenantResponse(
            tenant=records.tenant(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def activate_tenant(self, request: ActivateTenantRequest, call: Call) -> ActivateTenantResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
        changed = await self._service.activate_tenant(call.caller, tenant_id, options=call.options(request))
        return ActivateTenantResponse(
            tenant=records.tenant(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def delete_tenant(self, request: DeleteTenantRequest, call: Call) -> DeleteTenantResponse:
        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)
            confirm_slug = fields.slug("confirm_slug", request.confirm_slug)
        changed = await self._service.delete_tenant(
            call.caller, tenant_id, confirm_slug=confirm_slug, options=call.options(request)
        )
        return DeleteTenantResponse(
            deletion=records.tenant_deletion(changed.record), token=changed.token, replayed=changed.replayed
        )

    async def get_tenant_deletion(self, request: GetTenantDeletionRequest, call: Call) -> GetTenantDeletionResponse:
        by_slug = request.WhichOneof("tenant") == "slug"
        with Fields() as fields:
            slug = fields.slug("slug", request.slug) if by_slug else None
            named = request.tenant_id or call.tenant_id or ""
            tenant_id = None if by_slug else fields.tenant_id("tenant_id", named)
        deletion = await self._service.get_tenant_deletion(call.caller, tenant_id=tenant_id, slug=slug)
        if call.tenant_id not in (None, deletion.tenant_id):
            raise invalid_field("slug", f"contradicts the metadata {TENANT}")
        return GetTenantDeletionResponse(deletion=records.tenant_deletion(deletion))
