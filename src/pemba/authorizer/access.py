"""Who may ask: a caller that acts for a user asks about that user, and about others where the user administers."""

from __future__ import annotations

from pemba.authorizer.questions import Question
from pemba.errors import Forbidden, NotFound, Reason
from pemba.model import Caller, ObjectRef, Permission, SubjectRef, TenantId, TenantScope, UserId, WorkspaceId
from pemba.storage import authority
from pemba.storage.database import Database, TenantTransaction


async def require_may_ask(database: Database, caller: Caller, tenant_id: TenantId, question: Question) -> None:
    """Raises NotFound where the acting user may not see the resource, Forbidden where they do not administer it."""
    user = caller.acting_user
    if user is None or question.subject == SubjectRef("user", user):
        return
    async with database.begin(TenantScope(tenant_id)) as tx:
        held = await _held(tx, user, question.resource)
    if held is None:
        raise NotFound(str(question.resource))
    if held.rank < Permission.ADMINISTER.rank:
        raise Forbidden(
            Reason.ROLE_MISSING,
            "it takes `administer` on the resource to ask about others",
            {"permission": Permission.ADMINISTER, "held": held},
        )


async def _held(tx: TenantTransaction, user: UserId, resource: ObjectRef) -> Permission | None:
    if resource.type == "tenant":
        return await authority.on_tenant(tx, user) if resource.id == tx.tenant_id else None
    return await authority.on_workspace(tx, user, WorkspaceId(resource.id))
