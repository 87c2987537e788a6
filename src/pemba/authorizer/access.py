"""Who may ask: a caller that acts for a user asks about that user, and about others where the user administers."""

from __future__ import annotations

from pemba.authorizer.questions import Question
from pemba.errors import Forbidden, NotFound, Reason
from pemba.model import Caller, ObjectRef, Permission, SubjectRef, TenantId, TenantScope, UserId, WorkspaceId
from pemba.storage import authority, workspaces
from pemba.storage.database import Database, TenantTransaction


async def require_may_ask(database: Database, caller: Caller, tenant_id: TenantId, question: Question) -> None:
    """Raises NotFound where the caller may not see the resource, Forbidden where a user does not administer it."""
    await _require_within(database, caller, tenant_id, question.resource)
    user = caller.acting_user
    if user is not None and question.subject != SubjectRef("user", user):
        await _require_administers(database, user, tenant_id, question.resource)


async def require_may_look_up(database: Database, caller: Caller, tenant_id: TenantId, subject: SubjectRef) -> None:
    """What somebody else may do anywhere in the tenant is for the tenant's admins.  Raises NotFound, Forbidden."""
    tenant = ObjectRef("tenant", tenant_id)
    await _require_within(database, caller, tenant_id, tenant)
    user = caller.acting_user
    if user is not None and subject != SubjectRef("user", user):
        await _require_administers(database, user, tenant_id, tenant)


async def require_may_list(database: Database, caller: Caller, tenant_id: TenantId, resource: ObjectRef) -> None:
    """Who may do something on the object is for those who administer it.  Raises NotFound, Forbidden."""
    await _require_within(database, caller, tenant_id, resource)
    if caller.acting_user is not None:
        await _require_administers(database, caller.acting_user, tenant_id, resource)


async def _require_within(database: Database, caller: Caller, tenant_id: TenantId, resource: ObjectRef) -> None:
    """Raises NotFound for what is not of the tenant, or below the workspace, that the credential is confined to."""
    if caller.tenant_id not in (None, tenant_id):
        raise NotFound(f"tenant {tenant_id}")
    if caller.workspace_id is None:
        return
    if resource.type == "workspace":
        async with database.begin(TenantScope(tenant_id)) as tx:
            line = await workspaces.line(tx, WorkspaceId(resource.id))
        if any(above.id == caller.workspace_id for above in line):
            return
    raise NotFound(str(resource))


async def _require_administers(database: Database, user: UserId, tenant_id: TenantId, resource: ObjectRef) -> None:
    """Raises NotFound where the user may not see the resource, Forbidden where they do not administer it."""
    async with database.begin(TenantScope(tenant_id)) as tx:
        held = await _held(tx, user, resource)
    if held is None:
        raise NotFound(str(resource))
    if held.rank < Permission.ADMINISTER.rank:
        raise Forbidden(
            Reason.ROLE_MISSING,
            f"it takes `administer` on the {resource.type} to ask about others",
            {"permission": Permission.ADMINISTER, "held": held},
        )


async def _held(tx: TenantTransaction, user: UserId, resource: ObjectRef) -> Permission | None:
    if resource.type == "tenant":
        return await authority.on_tenant(tx, user) if resource.id == tx.tenant_id else None
    return await authority.on_workspace(tx, user, WorkspaceId(resource.id))
