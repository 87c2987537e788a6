"""The tenant that an installation begins with, made by the first server that starts."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from pemba.errors import AlreadyExists, ConfigError, NotFound, PreconditionFailed
from pemba.model import Caller, Scope, UserId
from pemba.service.mutation import MutationOptions
from pemba.service.tenants import TenantService
from pemba.telemetry import Event

CALLER = Caller("pemba:bootstrap", frozenset(Scope), None, None, "bootstrap", "serve")
"""Who the audit says it was."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FirstTenant:
    """Its slug and name, and the user who administers it."""

    slug: str
    name: str
    admin: UserId


async def ensure(tenants: TenantService, wanted: FirstTenant) -> bool:
    """Make the tenant where no tenant has its slug: True where this made it.

    What has the slug already is left as it is, whatever its name and whoever administers it; of several servers that
    start at once one makes it.  Raises ConfigError where the admin is deactivated, for good.
    """
    try:
        await tenants.get_tenant(CALLER, tenant_id=None, slug=wanted.slug)
    except NotFound:
        return await _create(tenants, wanted)
    return False


async def _create(tenants: TenantService, wanted: FirstTenant) -> bool:
    options = MutationOptions(method="CreateTenant")
    try:
        created = await tenants.create_tenant(
            CALLER, slug=wanted.slug, name=wanted.name, first_admin=wanted.admin, options=options
        )
    except AlreadyExists:
        return False
    except PreconditionFailed as error:
        raise ConfigError(f"PEMBA_BOOTSTRAP_ADMIN: {error.message}") from error
    log.info(
        Event.TENANT_BOOTSTRAPPED,
        tenant=created.tenant.id,
        slug=created.tenant.slug,
        root_workspace=created.root_workspace.id,
        admin=f"user:{wanted.admin}",
    )
    return True
