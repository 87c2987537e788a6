"""New ids: TypeIDs over UUIDv7, so that they sort by the time they were made."""

from __future__ import annotations

from typeid import TypeID

from pemba.model import ApiKeyId, GroupId, InvitationId, ShareId, TenantId, WorkspaceId


def new_tenant_id() -> TenantId:
    return TenantId(str(TypeID(prefix="ten")))


def new_workspace_id() -> WorkspaceId:
    return WorkspaceId(str(TypeID(prefix="ws")))


def new_share_id() -> ShareId:
    return ShareId(str(TypeID(prefix="shr")))


def new_group_id() -> GroupId:
    return GroupId(str(TypeID(prefix="grp")))


def new_invitation_id() -> InvitationId:
    return InvitationId(str(TypeID(prefix="inv")))


def new_api_key_id() -> ApiKeyId:
    return ApiKeyId(str(TypeID(prefix="key")))
