"""Who has access, and through what: decided from the records, and held against checks by tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pemba.model import ROLE_PERMISSION, GroupId, ObjectRef, Permission, Role, ShareId, SubjectRef, WorkspaceId
from pemba.service.workspace_search import roles_that_give
from pemba.storage import effective_members
from pemba.storage.database import TenantTransaction

_TENANT_PERMISSION = {Role.MEMBER: Permission.VIEW, Role.ADMIN: Permission.ADMINISTER}


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on the object, on a workspace above it, or on the tenant: the subject's own, or that of a group.

    The subject is in the group, by themselves or through groups in it.  By a share: which, and the workspace of whose
    roster the subject, or the group, is.
    """

    object: ObjectRef
    role: Role
    share_id: ShareId | None = None
    with_workspace: ObjectRef | None = None
    group_id: GroupId | None = None


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
    tx: TenantTransaction,
    workspace_id: WorkspaceId | None,
    subject: SubjectRef,
    grants: Sequence[effective_members.Grant],
) -> EffectiveMember:
    given = [_permission(workspace_id, grant.workspace_id, grant.role) for grant in grants]
    through = tuple(
        Grant(
            _workspace(grant.workspace_id) or ObjectRef("tenant", tx.tenant_id),
            grant.role,
            grant.share_id,
            _workspace(grant.with_workspace_id),
            grant.group_id,
        )
        for grant in grants
    )
    return EffectiveMember(subject, max(given, key=lambda permission: permission.rank), through)


def _workspace(id_: WorkspaceId | None) -> ObjectRef | None:
    return ObjectRef("workspace", id_) if id_ else None


def _permission(workspace_id: WorkspaceId | None, where: WorkspaceId | None, role: Role) -> Permission:
    """A tenant's admin owns its root, and with it all below."""
    if where is not None:
        return ROLE_PERMISSION[role]
    return _TENANT_PERMISSION[role] if workspace_id is None else Permission.OWN
