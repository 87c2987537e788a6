"""`pemba group`: groups of users, and of other groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import groups_pb2

app = typer.Typer(name="group", help="Create and list groups, and say who is in them.", no_args_is_help=True)

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="Its slug or its id; also as group:SLUG.")]
MemberArgument = Annotated[
    str, typer.Argument(metavar="SUBJECT", help="user:ID, or another group as group:SLUG or group:grp_...")
]
_COLUMNS = ("GROUP", "NAME", "EXTERNAL ID", "ID", "CREATED")
_MEMBER_COLUMNS = ("SUBJECT", "MANAGER", "JOINED")


@changes(app, "create")
def create(
    pemba: Connection,
    slug: Annotated[str, typer.Argument(help="Unique in the tenant, for good.")],
    tenant: TenantOption = "",
    name: Annotated[str, typer.Option(help="What people call it; the slug where not given.")] = "",
    external_id: Annotated[str, typer.Option(help="What another system calls it.")] = "",
) -> None:
    """Create a group without members."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    request = groups_pb2.CreateGroupRequest(
        tenant_id=refs.tenant_id(pemba, tenant), slug=slug, name=name or slug, external_id=external_id
    )
    answer = pemba.change(pemba.groups.CreateGroup, request)
    show(pemba.output, answer, [_row(answer.group)])


@reads(app, "get")
def get(pemba: Connection, group: GroupArgument, tenant: TenantOption = "") -> None:
    """Show a group."""
    from pemba.cli import refs

    answer = refs.get_group(pemba, refs.tenant_id(pemba, tenant), group)
    show(pemba.output, answer, [_row(answer.group)])


@reads(app, "list")
def list_(
    pemba: Connection,
    tenant: TenantOption = "",
    member: Annotated[
        str, typer.Option(metavar="SUBJECT", help="Those that have this user or group as a direct member.")
    ] = "",
    filter_: Annotated[
        str, typer.Option("--filter", help="slug=text, name:text, external_id=text, joined with AND.")
    ] = "",
    limit: LimitOption = 1000,
) -> None:
    """List groups."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = groups_pb2.ListGroupsRequest(
        tenant_id=tenant_id,
        member=refs.holder_ref(pemba, tenant_id, member, "--member") if member else None,
        filter=filter_,
    )
    answer = pemba.list(pemba.groups.ListGroups, request, "groups", limit)
    show(pemba.output, answer, [_row(group) for group in answer.groups], _COLUMNS)


@changes(app, "update")
def update(
    pemba: Connection,
    group: GroupArgument,
    tenant: TenantOption = "",
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    external_id: Annotated[str | None, typer.Option(help="The new external id; '' for none.")] = None,
    etag: EtagOption = "",
) -> None:
    """Change a group's name or external id; its slug stays."""
    from pemba.v1 import groups_pb2

    if name is None and external_id is None:
        raise typer.BadParameter("--name or --external-id is missing: one of them is what changes")
    tenant_id, id_ = _ids(pemba, tenant, group)
    request = groups_pb2.UpdateGroupRequest(
        tenant_id=tenant_id, group_id=id_, name=name, external_id=external_id, etag=etag
    )
    answer = pemba.change(pemba.groups.UpdateGroup, request)
    show(pemba.output, answer, [_row(answer.group)])


@changes(app, "delete")
def delete(pemba: Connection, group: GroupArgument, tenant: TenantOption = "", etag: EtagOption = "") -> None:
    """Delete a group, with every role that it has, for good."""
    from pemba.v1 import groups_pb2

    tenant_id, id_ = _ids(pemba, tenant, group)
    request = groups_pb2.DeleteGroupRequest(tenant_id=tenant_id, group_id=id_, etag=etag)
    answer = pemba.change(pemba.groups.DeleteGroup, request)
    show(pemba.output, answer, [_row(answer.group)])


@changes(app, "add")
def add(
    pemba: Connection,
    group: GroupArgument,
    subject: MemberArgument,
    tenant: TenantOption = "",
    manager: Annotated[bool, typer.Option("--manager", help="They also change the group and its members.")] = False,
    etag: EtagOption = "",
) -> None:
    """Add a user or another group to a group, or make a member a manager (without --manager: none any more)."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    tenant_id, id_ = _ids(pemba, tenant, group)
    request = groups_pb2.AddGroupMemberRequest(
        tenant_id=tenant_id,
        group_id=id_,
        subject=refs.holder_ref(pemba, tenant_id, subject, "SUBJECT"),
        manager=manager,
        etag=etag,
    )
    answer = pemba.change(pemba.groups.AddGroupMember, request)
    show(pemba.output, answer, [_member_row(answer.group_member, {})])


@changes(app, "remove")
def remove(
    pemba: Connection,
    group: GroupArgument,
    subject: MemberArgument,
    tenant: TenantOption = "",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Succeed where they are not in it.")] = False,
    etag: EtagOption = "",
) -> None:
    """Take a user or another group out of a group."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    tenant_id, id_ = _ids(pemba, tenant, group)
    request = groups_pb2.RemoveGroupMemberRequest(
        tenant_id=tenant_id,
        group_id=id_,
        subject=refs.holder_ref(pemba, tenant_id, subject, "SUBJECT"),
        allow_missing=allow_missing,
        etag=etag,
    )
    answer = pemba.change(pemba.groups.RemoveGroupMember, request)
    rows = [_member_row(answer.group_member, {})] if answer.HasField("group_member") else []
    show(pemba.output, answer, rows, _MEMBER_COLUMNS)


@changes(app, "set")
def set_(
    pemba: Connection,
    group: GroupArgument,
    members: Annotated[
        list[str] | None, typer.Argument(metavar="[SUBJECT]...", help="user:ID, group:SLUG or group:grp_...")
    ] = None,
    tenant: TenantOption = "",
    manager: Annotated[
        list[str] | None, typer.Option(metavar="user:ID", help="A member who manages it; as often as there are some.")
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Leave the group without members.")] = False,
    etag: EtagOption = "",
) -> None:
    """Give a group exactly these members: who is not named goes."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    if bool(members or manager) == empty:
        raise typer.BadParameter("SUBJECT is missing: the members that the group is to have, or --empty alone for none")
    tenant_id, id_ = _ids(pemba, tenant, group)
    wanted = [
        groups_pb2.GroupMemberAssignment(subject=refs.subject_ref(m, "--manager"), manager=True) for m in manager or ()
    ]
    wanted += [
        groups_pb2.GroupMemberAssignment(subject=refs.holder_ref(pemba, tenant_id, text, "SUBJECT"))
        for text in members or ()
    ]
    request = groups_pb2.SetGroupMembersRequest(tenant_id=tenant_id, group_id=id_, members=wanted, etag=etag)
    answer = pemba.change(pemba.groups.SetGroupMembers, request)
    show(pemba.output, answer, [_row(answer.group)])


@reads(app, "members")
def members_(pemba: Connection, group: GroupArgument, tenant: TenantOption = "", limit: LimitOption = 1000) -> None:
    """List who is directly in a group."""
    from pemba.cli import refs
    from pemba.v1 import groups_pb2

    tenant_id, id_ = _ids(pemba, tenant, group)
    request = groups_pb2.ListGroupMembersRequest(tenant_id=tenant_id, group_id=id_)
    answer = pemba.list(pemba.groups.ListGroupMembers, request, "group_members", limit)
    nested = any(member.subject.type == "group" for member in answer.group_members)
    names = refs.group_slugs(pemba, tenant_id) if nested and pemba.output is Output.TABLE else {}
    show(pemba.output, answer, [_member_row(member, names) for member in answer.group_members], _MEMBER_COLUMNS)


def _ids(pemba: Connection, tenant: str, group: str) -> tuple[str, str]:
    from pemba.cli import refs

    tenant_id = refs.tenant_id(pemba, tenant)
    return tenant_id, refs.group_id(pemba, tenant_id, group)


def _row(group: groups_pb2.Group) -> Row:
    values = (group.slug, group.name, group.external_id, group.id, moment(group.create_time))
    return dict(zip(_COLUMNS, values, strict=True))


def _member_row(member: groups_pb2.GroupMember, names: Mapping[str, str]) -> Row:
    subject = f"{member.subject.type}:{names.get(member.subject.id, member.subject.id)}"
    return {
        "SUBJECT": subject,
        "MANAGER": "yes" if member.manager else "",
        "JOINED": moment(member.join_time),
    }
