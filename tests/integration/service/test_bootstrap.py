"""The tenant that an installation begins with: made once, by one of the servers that start."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from pemba.errors import ConfigError, NotFound
from pemba.model import UserId
from pemba.service import bootstrap
from pemba.service.bootstrap import FirstTenant
from pemba.service.tenants import TenantService

WANTED = FirstTenant("acme", "Acme", UserId("alice"))


class Together(TenantService):
    """All look before any of them makes it."""

    def __init__(self, parts, barrier: asyncio.Barrier) -> None:
        super().__init__(parts.mutations)
        self.barrier = barrier

    async def get_tenant(self, caller, *, tenant_id, slug):
        try:
            return await super().get_tenant(caller, tenant_id=tenant_id, slug=slug)
        except NotFound:
            await self.barrier.wait()
            raise


@pytest.mark.race
async def test_k2_of_servers_that_start_at_once_one_makes_the_tenant_its_root_and_its_admin(parts) -> None:
    servers = [Together(parts, barrier) for barrier in [asyncio.Barrier(4)] * 4]
    with structlog.testing.capture_logs() as logged:
        made = await asyncio.gather(*(bootstrap.ensure(server, WANTED) for server in servers))
        assert not await bootstrap.ensure(servers[0], WANTED), "nor when they start again"
    assert sorted(made) == [False, False, False, True]
    [tenant] = await parts.sql("SELECT id, slug, name FROM tenants")
    [root] = await parts.sql("SELECT id, kind FROM workspaces")
    [admin] = await parts.sql("SELECT user_id, role, workspace_id FROM memberships")
    assert (tenant["slug"], tenant["name"], root["kind"]) == ("acme", "Acme", "root")
    assert tuple(admin) == ("alice", "admin", None)
    [told] = [line for line in logged if line["event"] == "tenant_bootstrapped"]
    assert (told["tenant"], told["root_workspace"], told["admin"]) == (tenant["id"], root["id"], "user:alice")
    [audited] = await parts.sql("SELECT principal, method FROM audit")
    assert tuple(audited) == ("pemba:bootstrap", "CreateTenant")


async def test_k2_a_tenant_that_has_the_slug_is_left_as_it_is(parts) -> None:
    given = {"slug": "acme", "name": "Other", "first_admin": UserId("olga")}
    there = await parts.tenants.create_tenant(parts.system, **given, options=parts.options())
    await parts.tenants.suspend_tenant(parts.system, there.tenant.id, options=parts.options())
    assert not await bootstrap.ensure(parts.tenants, WANTED)
    [tenant] = await parts.sql("SELECT name, status FROM tenants")
    assert tuple(tenant) == ("Other", "suspended")
    assert [r["user_id"] for r in await parts.sql("SELECT user_id FROM memberships")] == ["olga"]


async def test_an_admin_who_is_deactivated_is_named_with_the_setting(parts) -> None:
    await parts.users.create_user(
        parts.system, UserId("alice"), email="", display_name="", first_workspace=None, options=parts.options()
    )
    await parts.deactivate("alice")
    with pytest.raises(ConfigError, match="PEMBA_BOOTSTRAP_ADMIN: user:alice is deactivated"):
        await bootstrap.ensure(parts.tenants, WANTED)
