"""TenantService: shapes in, records out."""

import pytest

from pemba.v1.tenants_pb2 import (
    TENANT_STATUS_ACTIVE,
    ActivateTenantRequest,
    CreateTenantRequest,
    DeleteTenantRequest,
    GetTenantDeletionRequest,
    GetTenantRequest,
    ListTenantsRequest,
    SuspendTenantRequest,
    UpdateTenantRequest,
)
from pemba.v1.workspaces_pb2 import WORKSPACE_KIND_ROOT

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"


async def test_a_tenant_is_created_with_its_root(running):
    request = CreateTenantRequest(slug="acme", name="Acme", first_admin="alice", request_id="i1")
    response = await running.call("CreateTenant", request)
    options = running.tenants.calls[0].options
    assert {name: options[name] for name in ("slug", "name", "first_admin")} == {
        "slug": "acme",
        "name": "Acme",
        "first_admin": "alice",
    }
    assert (options["options"].method, options["options"].request_id) == ("CreateTenant", "i1")
    tenant = response.tenant
    assert (tenant.id, tenant.slug, tenant.name, tenant.status) == (TENANT_ID, "acme", "Acme", TENANT_STATUS_ACTIVE)
    assert tenant.create_time.ToJsonString() == "2026-11-21T09:30:00Z"
    assert (response.root_workspace.kind, response.token) == (WORKSPACE_KIND_ROOT, "t1")
    assert not response.root_workspace.HasField("archive_time")


async def test_a_reserved_slug_is_refused_with_its_own_reason(running):
    request = CreateTenantRequest(slug="admin", name="Acme", first_admin="alice")
    assert (await running.refusal("CreateTenant", request)).reason == "SLUG_RESERVED"


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (GetTenantRequest(tenant_id=TENANT_ID), {"tenant_id": TENANT_ID, "slug": None}),
        (GetTenantRequest(slug="acme"), {"tenant_id": None, "slug": "acme"}),
    ],
    ids=["id", "slug"],
)
async def test_a_tenant_is_got_by_id_or_by_slug(running, request_, named):
    assert (await running.call("GetTenant", request_)).tenant.slug == "acme"
    assert running.tenants.calls[0].options == named


async def test_neither_id_nor_slug_is_refused(running):
    assert list((await running.refusal("GetTenant", GetTenantRequest())).violations) == ["tenant_id"]


async def test_a_list_is_paged(running):
    response = await running.call("ListTenants", ListTenantsRequest(page_size=5000, page_token="p"))
    assert running.tenants.calls[0].options == {"page_size": 1000, "page_token": "p"}
    assert ([tenant.id for tenant in response.tenants], response.next_page_token) == ([TENANT_ID], "next")


async def test_what_a_list_cannot_do_yet_is_refused_and_not_ignored(running):
    refusal = await running.refusal("ListTenants", ListTenantsRequest(order_by="name", filter="x", page_size=-1))
    assert set(refusal.violations) == {"order_by", "filter", "page_size"}
    assert "not supported yet" in refusal.violations["order_by"]


async def test_a_name_is_changed_under_its_etag(running):
    request = UpdateTenantRequest(tenant_id=TENANT_ID, name="New", etag="e1")
    assert (await running.call("UpdateTenant", request)).token == "t2"
    noted = running.tenants.calls[0]
    assert (noted.arguments[1], noted.options["name"], noted.options["options"].etag) == (TENANT_ID, "New", "e1")


@pytest.mark.parametrize(
    ("method", "request_type"), [("SuspendTenant", SuspendTenantRequest), ("ActivateTenant", ActivateTenantRequest)]
)
async def test_a_status_is_changed(running, method, request_type):
    response = await running.call(method, request_type(tenant_id=TENANT_ID, validate_only=True))
    assert response.tenant.id == TENANT_ID
    assert running.tenants.calls[0].options["options"].validate_only
    assert list((await running.refusal(method, request_type())).violations) == ["tenant_id"]


async def test_a_tenant_is_deleted_by_its_id_and_its_slug(running):
    request = DeleteTenantRequest(tenant_id=TENANT_ID, confirm_slug="acme", etag="e1", request_id="d1")
    response = await running.call("DeleteTenant", request)
    noted = running.tenants.calls[0]
    assert (noted.arguments[1], noted.options["confirm_slug"]) == (TENANT_ID, "acme")
    assert (noted.options["options"].etag, noted.options["options"].request_id) == ("e1", "d1")
    deletion = response.deletion
    assert (deletion.tenant_id, deletion.slug, deletion.name, response.token) == (TENANT_ID, "acme", "Acme", "t2")
    assert [(each.records, each.total, each.left) for each in deletion.counts] == [("workspaces", 5, 3)]
    assert not deletion.HasField("finish_time")
    refusal = await running.refusal("DeleteTenant", DeleteTenantRequest())
    assert set(refusal.violations) == {"tenant_id", "confirm_slug"}


async def test_a_deletion_is_followed_by_id_or_slug(running):
    response = await running.call("GetTenantDeletion", GetTenantDeletionRequest(slug="acme"))
    assert running.tenants.calls[0].options == {"tenant_id": None, "slug": "acme"}
    assert response.deletion.undelivered_rows == 2
    await running.call("GetTenantDeletion", GetTenantDeletionRequest(tenant_id=TENANT_ID))
    assert running.tenants.calls[1].options == {"tenant_id": TENANT_ID, "slug": None}
    await running.call("GetTenantDeletion", GetTenantDeletionRequest(), ("pemba-tenant", TENANT_ID))
    assert running.tenants.calls[2].options == {"tenant_id": TENANT_ID, "slug": None}
