"""Who has access, and through what: decided from the records, and held against checks by tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemba.model import ROLE_PERMISSION, ObjectRef, Permission, Role, SubjectRef, WorkspaceId
from pemba.service.workspace_search import roles_that_give
from pemba.storage import effective_members
from pemba.storage.database import TenantTransaction

_TENANT_PERMISSION = {Role.MEMBER: Permission.VIEW, Role.ADMIN: Permission.ADMINISTER}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on the object, on a workspace above it, or on the tenant."""

    object: ObjectRef
    role: Role


@dataclass(frozen=True, slots=True)
class EffectiveMember:
    """`permission` is the strongest that the grants give; they run from the object upwards."""

    subject: SubjectRef
    permission: Permission
    through: tuple[Grant, ...]


async def find(
    tx: TenantTransaction,
    workspace_id: WorkspaceId | None,
    permission: Permission,
    after: Sequence[str],
    limit: int,
) -> list[EffectiveMember]:
    """At most `limit` of those who have the permission on the workspace (None: the tenant), by subject."""
    roles = roles_that_give(permission) if workspace_id else _tenant_roles_that_give(permission)
    found = await effective_members.list_after(tx, workspace_id, roles, after, limit)
    return [_member(tx, workspace_id, subject, grants) for subject, grants in found]


def _tenant_roles_that_give(permission: Permission) -> tuple[Role, ...]:
    return tuple(role for role, given in _TENANT_PERMISSION.items() if given.rank >= permission.rank)


def _member(
    tx: TenantTransaction, workspace_id: WorkspaceId | None, subject: SubjectRef, grants: effective_members.Grants
) -> EffectiveMember:
    given = [_permission(workspace_id, where, role) for where, role in grants]
    tenant = ObjectRef("tenant", tx.tenant_id)
    through = tuple(Grant(ObjectRef("workspace", where) if where else tenant, role) for where, role in grants)
    return EffectiveMember(subject, max(given, key=lambda permission: permission.rank), through)


def _permission(workspace_id: WorkspaceId | None, where: WorkspaceId | None, role: Role) -> Permission:
    """A tenant's admin owns its root, and with it all below."""
    if where is not None:
        return ROLE_PERMISSION[role]
    return _TENANT_PERMISSION[role] if workspace_id is None else Permission.OWN
