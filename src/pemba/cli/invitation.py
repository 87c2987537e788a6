"""`pemba invitation`: roles for whoever has an email address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.member import role_number
from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import invitations_pb2, types_pb2

app = typer.Typer(name="invitation", help="Invite people by their email.", no_args_is_help=True)

ROLES = ("viewer", "member", "editor", "admin", "owner")
InvitationArgument = Annotated[str, typer.Argument(metavar="INVITATION", help="The invitation's id, inv_...")]
SecretArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="The secret that was printed when it was made.")]
ToOption = Annotated[
    str, typer.Option("--to", metavar="WORKSPACE", help="Path or id of the workspace; without it the tenant itself.")
]
EmailOption = Annotated[str, typer.Option(metavar="EMAIL", help="Their address, which you have verified.")]
_COLUMNS = ("INVITATION", "EMAIL", "TO", "ROLE", "STATUS", "EXPIRES")


@changes(app, "create")
def create(
    pemba: Connection,
    email: Annotated[str, typer.Argument(help="Whom to invite.")],
    role: Annotated[str, typer.Argument(help="viewer, member (editor is the same), admin or owner.")],
    to: ToOption = "",
    tenant: TenantOption = "",
) -> None:
    """Invite somebody, and print the secret with which they accept: this once."""
    from pemba.cli import refs
    from pemba.v1 import invitations_pb2

    number, tenant_id = role_number(role, ROLES), refs.tenant_id(pemba, tenant)
    request = invitations_pb2.CreateInvitationRequest(
        tenant_id=tenant_id, workspace=_workspace(pemba, tenant_id, to), email=email, role=number
    )
    answer = pemba.change(pemba.invitations.CreateInvitation, request)
    show(pemba.output, answer, [_row(answer.invitation)])
    if pemba.output is Output.TABLE:
        for line in filter(None, (answer.token, answer.url)):
            print(line)


@changes(app, "accept")
def accept(
    pemba: Connection,
    token: SecretArgument,
    user: Annotated[str, typer.Option(metavar="user:ID", help="Who accepts, where a system key says so.")] = "",
    email: EmailOption = "",
    name: Annotated[str, typer.Option(help="How the user is called, where they have no record yet.")] = "",
) -> None:
    """Accept an invitation, for a user whose email is the one it is for."""
    from pemba.cli import refs
    from pemba.v1 import invitations_pb2

    user_id = refs.user_id(user, "--user") if user else ""
    request = invitations_pb2.AcceptInvitationRequest(token=token, user_id=user_id, email=email, display_name=name)
    answer = pemba.change(pemba.invitations.AcceptInvitation, request)
    show(pemba.output, answer, [_row(answer.invitation)])


@changes(app, "decline")
def decline(pemba: Connection, token: SecretArgument, email: EmailOption = "") -> None:
    """Decline an invitation: nobody can accept it any more."""
    from pemba.v1 import invitations_pb2

    request = invitations_pb2.DeclineInvitationRequest(token=token, email=email)
    answer = pemba.change(pemba.invitations.DeclineInvitation, request)
    show(pemba.output, answer, [_row(answer.invitation)])


@changes(app, "revoke")
def revoke(pemba: Connection, invitation: InvitationArgument, tenant: TenantOption = "", etag: EtagOption = "") -> None:
    """Take an invitation back."""
    from pemba.cli import refs
    from pemba.v1 import invitations_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = invitations_pb2.RevokeInvitationRequest(tenant_id=tenant_id, invitation_id=invitation, etag=etag)
    answer = pemba.change(pemba.invitations.RevokeInvitation, request)
    show(pemba.output, answer, [_row(answer.invitation)])


@reads(app, "show")
def show_(pemba: Connection, invitation: InvitationArgument, tenant: TenantOption = "") -> None:
    """Show an invitation, without its secret, which nobody keeps."""
    from pemba.cli import refs
    from pemba.v1 import invitations_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = invitations_pb2.GetInvitationRequest(tenant_id=tenant_id, invitation_id=invitation)
    answer = pemba.read(pemba.invitations.GetInvitation, request)
    show(pemba.output, answer, [_row(answer.invitation)])


@reads(app, "list")
def list_(
    pemba: Connection,
    to: ToOption = "",
    ended: Annotated[bool, typer.Option("--ended", help="Those too that can be accepted no more.")] = False,
    tenant: TenantOption = "",
    limit: LimitOption = 1000,
) -> None:
    """List the invitations to a workspace, or to the tenant itself."""
    from pemba.cli import refs
    from pemba.v1 import invitations_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    request = invitations_pb2.ListInvitationsRequest(
        tenant_id=tenant_id, workspace=_workspace(pemba, tenant_id, to), include_ended=ended
    )
    answer = pemba.list(pemba.invitations.ListInvitations, request, "invitations", limit)
    named = [each.object for each in answer.invitations if each.object.type == "workspace"]
    names = refs.readable(pemba, tenant_id, named) if pemba.output is Output.TABLE and named else {}
    show(pemba.output, answer, [_row(each, names) for each in answer.invitations], _COLUMNS)


def _workspace(pemba: Connection, tenant_id: str, path: str) -> types_pb2.ObjectRef | None:
    """None is the tenant itself."""
    from pemba.cli import refs
    from pemba.v1 import types_pb2

    return types_pb2.ObjectRef(type="workspace", id=refs.workspace_id(pemba, tenant_id, path)) if path else None


def _row(invitation: invitations_pb2.Invitation, names: Mapping[str, str] | None = None) -> Row:
    from pemba.v1 import invitations_pb2, types_pb2

    to = (names or {}).get(invitation.object.id, f"{invitation.object.type}:{invitation.object.id}")
    role = types_pb2.Role.Name(invitation.role).removeprefix("ROLE_").lower()
    status = invitations_pb2.InvitationStatus.Name(invitation.status).removeprefix("INVITATION_STATUS_").lower()
    values = (invitation.id, invitation.email, to, role, status, moment(invitation.expire_time))
    return dict(zip(_COLUMNS, values, strict=True))
