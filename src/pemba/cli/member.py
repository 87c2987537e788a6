"""`pemba member`: roles on a tenant or a workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import memberships_pb2, types_pb2

app = typer.Typer(name="member", help="Give, change and take away roles.", no_args_is_help=True)

ObjectArgument = Annotated[
    str, typer.Argument(metavar="OBJECT", help="workspace:PATH or workspace:ws_..., tenant:SLUG or tenant:ten_...")
]
SubjectArgument = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="user:ID, for instance user:alice, or group:SLUG or group:grp_...")
]
ROLES = ("viewer", "member", "editor", "admin", "owner")
_COLUMNS = ("OBJECT", "SUBJECT", "ROLE", "JOINED")


@changes(app, "set")
def set_(
    pemba: Connection,
    object_: ObjectArgument,
    subject: SubjectArgument,
    role: Annotated[str, typer.Argument(help="viewer, member (editor is the same), admin or owner.")],
    tenant: TenantOption = "",
    etag: EtagOption = "",
) -> None:
    """Give a subject a role, or change the role it has."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    number = role_number(role, ROLES)
    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.SetRoleRequest(
        tenant_id=tenant_id,
        object=refs.object_ref(pemba, tenant_id, object_, "OBJECT"),
        subject=refs.holder_ref(pemba, tenant_id, subject, "SUBJECT"),
        role=number,
        etag=etag,
    )
    answer = pemba.change(pemba.memberships.SetRole, request)
    show(pemba.output, answer, [_row(answer.membership)])


@reads(app, "get")
def get(pemba: Connection, object_: ObjectArgument, subject: SubjectArgument, tenant: TenantOption = "") -> None:
    """Show the role that a subject has directly on an object."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.GetMembershipRequest(
        tenant_id=tenant_id,
        object=refs.object_ref(pemba, tenant_id, object_, "OBJECT"),
        subject=refs.holder_ref(pemba, tenant_id, subject, "SUBJECT"),
    )
    answer = pemba.read(pemba.memberships.GetMembership, request)
    show(pemba.output, answer, [_row(answer.membership)])


@changes(app, "remove")
def remove(
    pemba: Connection,
    object_: ObjectArgument,
    subject: SubjectArgument,
    tenant: TenantOption = "",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Succeed where there is no role.")] = False,
    transfer_to: Annotated[
        str, typer.Option(metavar="user:ID", help="Who becomes owner in a last owner's place.")
    ] = "",
    etag: EtagOption = "",
) -> None:
    """Take a subject's role away; from the tenant: every role that a user has in it, and their groups."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.RemoveMemberRequest(
        tenant_id=tenant_id,
        object=refs.object_ref(pemba, tenant_id, object_, "OBJECT"),
        subject=refs.holder_ref(pemba, tenant_id, subject, "SUBJECT"),
        allow_missing=allow_missing,
        transfer_to=refs.user_id(transfer_to, "--transfer-to") if transfer_to else "",
        etag=etag,
    )
    answer = pemba.change(pemba.memberships.RemoveMember, request)
    show(pemba.output, answer, [_row(answer.membership)] if answer.HasField("membership") else [])


@reads(app, "list")
def list_(pemba: Connection, object_: ObjectArgument, tenant: TenantOption = "", limit: LimitOption = 1000) -> None:
    """List who has a role directly on an object."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.ListMembersRequest(
        tenant_id=tenant_id, object=refs.object_ref(pemba, tenant_id, object_, "OBJECT")
    )
    answer = pemba.list(pemba.memberships.ListMembers, request, "memberships", limit)
    show(pemba.output, answer, [_row(membership) for membership in answer.memberships], _COLUMNS)


@reads(app, "effective")
def effective(
    pemba: Connection,
    object_: ObjectArgument,
    permission: Annotated[str, typer.Option(help="Only who has it: own, administer, edit or view.")] = "view",
    tenant: TenantOption = "",
    limit: LimitOption = 1000,
) -> None:
    """List everybody who has access to an object, and through which roles."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.ListEffectiveMembersRequest(
        tenant_id=tenant_id,
        object=refs.object_ref(pemba, tenant_id, object_, "OBJECT"),
        permission=permission,
    )
    answer = pemba.list(pemba.memberships.ListEffectiveMembers, request, "effective_members", limit)
    grants = [grant for member in answer.effective_members for grant in member.through]
    objects = [ref for grant in grants for ref in (grant.object, grant.with_workspace)]
    by_groups = any(grant.group_id for grant in grants)
    names = refs.readable(pemba, tenant_id, objects) if pemba.output is Output.TABLE else {}
    if by_groups and pemba.output is Output.TABLE:
        names |= refs.group_slugs(pemba, tenant_id)
    rows = [_effective_row(member, names) for member in answer.effective_members]
    show(pemba.output, answer, rows, ("SUBJECT", "PERMISSION", "THROUGH"))


@changes(app, "transfer")
def transfer(
    pemba: Connection,
    object_: ObjectArgument,
    from_user: Annotated[str, typer.Option("--from", metavar="user:ID", help="The owner who steps back.")],
    to_user: Annotated[str, typer.Option("--to", metavar="user:ID", help="The user who becomes owner.")],
    tenant: TenantOption = "",
) -> None:
    """Hand the ownership of a workspace to another user."""
    from pemba.cli import refs
    from pemba.v1 import memberships_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = memberships_pb2.TransferOwnershipRequest(
        tenant_id=tenant_id,
        object=refs.object_ref(pemba, tenant_id, object_, "OBJECT"),
        from_user=refs.user_id(from_user, "--from"),
        to_user=refs.user_id(to_user, "--to"),
    )
    answer = pemba.change(pemba.memberships.TransferOwnership, request)
    show(pemba.output, answer, [_row(membership) for membership in answer.memberships])


def role_number(text: str, roles: Sequence[str]) -> types_pb2.Role.ValueType:
    """One of these roles, of which `editor` is member.  Raises BadParameter."""
    from pemba.v1 import types_pb2

    if text not in roles:
        raise typer.BadParameter(f"ROLE takes {', '.join(roles)}; not {text!r}")
    return types_pb2.Role.Value(f"ROLE_{'MEMBER' if text == 'editor' else text.upper()}")


def _effective_row(member: memberships_pb2.EffectiveMember, objects: Mapping[str, str]) -> Row:
    from pemba.v1 import types_pb2

    names = {role: types_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in types_pb2.Role.values()}
    through = [
        f"{names[grant.role]} of {objects.get(grant.object.id, '')}"
        + (f" by its share with {objects.get(grant.with_workspace.id, '')}" if grant.share_id else "")
        + (f" by group:{objects.get(grant.group_id, grant.group_id)}" if grant.group_id else "")
        for grant in member.through
    ]
    relation = f"#{member.subject.relation}" if member.subject.relation else ""
    subject = f"{member.subject.type}:{member.subject.id}{relation}"
    return {"SUBJECT": subject, "PERMISSION": member.permission, "THROUGH": ", ".join(through)}


def _row(membership: memberships_pb2.Membership) -> Row:
    from pemba.v1 import types_pb2

    object_, subject = (f"{ref.type}:{ref.id}" for ref in (membership.object, membership.subject))
    if membership.subject.relation:
        subject += f"#{membership.subject.relation}"
    role = types_pb2.Role.Name(membership.role).removeprefix("ROLE_").lower()
    return dict(zip(_COLUMNS, (object_, subject, role, moment(membership.join_time)), strict=True))
