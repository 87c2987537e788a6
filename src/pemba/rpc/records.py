"""Records as messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.errors import Reason
from pemba.model import (
    ApiKey,
    Group,
    GroupMember,
    Invitation,
    InvitationStatus,
    Membership,
    ObjectRef,
    Operation,
    Role,
    Settings,
    Share,
    SubjectRef,
    Tenant,
    TenantDeletion,
    TenantStatus,
    TupleOperation,
    User,
    UserStatus,
    Workspace,
    WorkspaceKind,
)
from pemba.service.effective_members import EffectiveMember
from pemba.v1 import (
    api_keys_pb2,
    groups_pb2,
    invitations_pb2,
    memberships_pb2,
    operations_pb2,
    shares_pb2,
    tenants_pb2,
    types_pb2,
    users_pb2,
    workspaces_pb2,
)
from pemba.v1.errors_pb2 import ErrorReason

_STATUSES = {
    TenantStatus.ACTIVE: tenants_pb2.TENANT_STATUS_ACTIVE,
    TenantStatus.SUSPENDED: tenants_pb2.TENANT_STATUS_SUSPENDED,
}
KINDS = {
    WorkspaceKind.ROOT: workspaces_pb2.WORKSPACE_KIND_ROOT,
    WorkspaceKind.SHARED: workspaces_pb2.WORKSPACE_KIND_SHARED,
    WorkspaceKind.PERSONAL: workspaces_pb2.WORKSPACE_KIND_PERSONAL,
}
_INVITATION_STATUSES = {
    InvitationStatus.PENDING: invitations_pb2.INVITATION_STATUS_PENDING,
    InvitationStatus.ACCEPTED: invitations_pb2.INVITATION_STATUS_ACCEPTED,
    InvitationStatus.DECLINED: invitations_pb2.INVITATION_STATUS_DECLINED,
    InvitationStatus.REVOKED: invitations_pb2.INVITATION_STATUS_REVOKED,
    InvitationStatus.EXPIRED: invitations_pb2.INVITATION_STATUS_EXPIRED,
}
_USER_STATUSES = {
    UserStatus.ACTIVE: users_pb2.USER_STATUS_ACTIVE,
    UserStatus.SUSPENDED: users_pb2.USER_STATUS_SUSPENDED,
    UserStatus.DEACTIVATED: users_pb2.USER_STATUS_DEACTIVATED,
}
_ROLES = {
    Role.VIEWER: types_pb2.ROLE_VIEWER,
    Role.MEMBER: types_pb2.ROLE_MEMBER,
    Role.ADMIN: types_pb2.ROLE_ADMIN,
    Role.OWNER: types_pb2.ROLE_OWNER,
}

OPERATIONS = {
    Operation.TOUCH: operations_pb2.TUPLE_OPERATION_TOUCH,
    Operation.DELETE: operations_pb2.TUPLE_OPERATION_DELETE,
}

REASONS: dict[Reason | None, ErrorReason.ValueType] = {
    None: ErrorReason.ERROR_REASON_UNSPECIFIED,
    **{reason: ErrorReason.Value(f"ERROR_REASON_{reason}") for reason in Reason},
}
"""Why nothing was asked; unspecified where something was."""


def tenant(record: Tenant) -> tenants_pb2.Tenant:
    return tenants_pb2.Tenant(
        id=record.id,
        slug=record.slug,
        name=record.name,
        status=_STATUSES[record.status],
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        etag=record.etag,
    )


def tenant_deletion(record: TenantDeletion) -> tenants_pb2.TenantDeletion:
    return tenants_pb2.TenantDeletion(
        tenant_id=record.tenant_id,
        slug=record.slug,
        name=record.name,
        create_time=timestamp(record.create_time),
        finish_time=None if record.finish_time is None else timestamp(record.finish_time),
        counts=[
            tenants_pb2.TenantDeletionCount(records=each.records, total=each.total, left=each.left)
            for each in record.counts
        ],
        undelivered_rows=record.undelivered,
    )


def workspace(record: Workspace) -> workspaces_pb2.Workspace:
    return workspaces_pb2.Workspace(
        id=record.id,
        tenant_id=record.tenant_id,
        parent_id=record.parent_id or "",
        slug=record.slug,
        name=record.name,
        kind=KINDS[record.kind],
        archive_time=None if record.archive_time is None else timestamp(record.archive_time),
        archived_with=record.archived_with or "",
        creator_id=record.creator_id or "",
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        etag=record.etag,
        personal_user_id=record.personal_user_id or "",
    )


def settings(record: Settings) -> workspaces_pb2.Settings:
    message = workspaces_pb2.Settings(
        tenant_id=record.tenant_id,
        workspace_id=record.workspace_id,
        namespace=record.namespace,
        secrets=[
            workspaces_pb2.SecretSetting(name=each.name, update_time=timestamp(each.update_time))
            for each in record.secrets
        ],
        update_time=None if record.update_time is None else timestamp(record.update_time),
        etag=record.etag,
    )
    message.values.update(record.values)
    return message


def user(record: User) -> users_pb2.User:
    return users_pb2.User(
        id=record.id,
        email=record.email,
        display_name=record.display_name,
        status=_USER_STATUSES[record.status],
        activating=record.activating,
        last_login_time=None if record.last_login_time is None else timestamp(record.last_login_time),
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        etag=record.etag,
    )


def membership(record: Membership) -> memberships_pb2.Membership:
    object_ = record.object
    return memberships_pb2.Membership(
        tenant_id=record.tenant_id,
        object=types_pb2.ObjectRef(type=object_.type, id=object_.id),
        subject=subject(record.subject),
        role=_ROLES[record.role],
        join_time=timestamp(record.join_time),
        update_time=timestamp(record.update_time),
        invited_by=record.invited_by or "",
        etag=record.etag,
    )


def effective_member(member: EffectiveMember) -> memberships_pb2.EffectiveMember:
    return memberships_pb2.EffectiveMember(
        subject=subject(member.subject),
        permission=member.permission,
        through=[
            memberships_pb2.Grant(
                object=_object(grant.object),
                role=_ROLES[grant.role],
                share_id=grant.share_id or "",
                with_workspace=_object(grant.with_workspace) if grant.with_workspace else None,
                group_id=grant.group_id or "",
            )
            for grant in member.through
        ],
    )


def share(record: Share) -> shares_pb2.Share:
    return shares_pb2.Share(
        id=record.id,
        tenant_id=record.tenant_id,
        workspace=types_pb2.ObjectRef(type="workspace", id=record.workspace_id),
        with_workspace=types_pb2.ObjectRef(type="workspace", id=record.with_workspace_id),
        role=_ROLES[record.role],
        expire_time=None if record.expire_time is None else timestamp(record.expire_time),
        created_by=record.created_by or "",
        create_time=timestamp(record.create_time),
        etag=record.etag,
    )


def invitation(record: Invitation) -> invitations_pb2.Invitation:
    return invitations_pb2.Invitation(
        id=record.id,
        tenant_id=record.tenant_id,
        object=_object(record.object),
        email=record.email,
        role=_ROLES[record.role],
        status=_INVITATION_STATUSES[record.status],
        invited_by=record.invited_by or "",
        accepted_by=record.accepted_by or "",
        expire_time=timestamp(record.expire_time),
        create_time=timestamp(record.create_time),
        end_time=None if record.end_time is None else timestamp(record.end_time),
        etag=record.etag,
    )


def _object(ref: ObjectRef) -> types_pb2.ObjectRef:
    return types_pb2.ObjectRef(type=ref.type, id=ref.id)


def group(record: Group) -> groups_pb2.Group:
    return groups_pb2.Group(
        id=record.id,
        tenant_id=record.tenant_id,
        slug=record.slug,
        name=record.name,
        external_id=record.external_id,
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        etag=record.etag,
    )


def group_member(record: GroupMember) -> groups_pb2.GroupMember:
    return groups_pb2.GroupMember(
        tenant_id=record.tenant_id,
        group_id=record.group_id,
        subject=subject(record.subject),
        manager=record.manager,
        join_time=timestamp(record.join_time),
        added_by=record.added_by or "",
    )


def subject(ref: SubjectRef) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type=ref.type, id=ref.id, relation=ref.relation)


def api_key(record: ApiKey) -> api_keys_pb2.ApiKey:
    message = api_keys_pb2.ApiKey(
        id=record.id,
        tenant_id=record.tenant_id or "",
        user_id=record.user_id or "",
        workspace_id=record.workspace_id or "",
        name=record.name,
        prefix=record.prefix,
        scopes=record.scopes,
        created_by=record.created_by or "",
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        etag=record.etag,
    )
    for field in ("expire_time", "revoke_time", "previous_secret_expire_time", "last_used_time"):
        if (time := getattr(record, field)) is not None:
            getattr(message, field).CopyFrom(timestamp(time))
    return message


def operation(of: TupleOperation) -> operations_pb2.TailedOperation:
    return operations_pb2.TailedOperation(operation=OPERATIONS[of.operation], tuple=str(of.tuple))


def json_value(value: object) -> Value | None:
    """Anything in JSON; None for nothing."""
    return None if value is None else ParseDict(value, Value())  # type: ignore[arg-type]  # a Value takes any JSON


def timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
