"""`pemba share`: a role on a workspace for the members of another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.member import role_number
from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, show
from pemba.cli.times import moment_of

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import shares_pb2

app = typer.Typer(name="share", help="Share workspaces with the members of others.", no_args_is_help=True)

ROLES = ("viewer", "member", "editor", "admin")
ShareArgument = Annotated[str, typer.Argument(metavar="SHARE", help="The share's id, shr_...")]
WorkspaceArgument = Annotated[str, typer.Argument(help="Path or id of the workspace; / is the root.")]
_COLUMNS = ("SHARE", "WORKSPACE", "WITH", "ROLE", "EXPIRES")


@changes(app, "create")
def create(
    pemba: Connection,
    workspace: WorkspaceArgument,
    with_workspace: Annotated[str, typer.Argument(help="Path or id of the workspace whose direct members get it.")],
    role: Annotated[str, typer.Argument(help="viewer, member (editor is the same) or admin.")],
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="When it ends by itself: 2026-12-31T18:00Z, or in 90s, 45m, 12h, 30d.")
    ] = "",
    tenant: TenantOption = "",
) -> None:
    """Give the direct members of a workspace a role on another."""
    from pemba.cli import refs
    from pemba.v1 import shares_pb2, types_pb2

    number, until = role_number(role, ROLES), moment_of(expires, "--expires") if expires else None
    tenant_id = refs.tenant_id(pemba, tenant)
    request = shares_pb2.CreateShareRequest(
        tenant_id=tenant_id,
        workspace=types_pb2.ObjectRef(type="workspace", id=refs.workspace_id(pemba, tenant_id, workspace)),
        with_workspace=types_pb2.ObjectRef(type="workspace", id=refs.workspace_id(pemba, tenant_id, with_workspace)),
        role=number,
    )
    if until is not None:
        request.expire_time.FromDatetime(until)
    answer = pemba.change(pemba.shares.CreateShare, request)
    show(pemba.output, answer, [_row(answer.share)])


@changes(app, "revoke")
def revoke(pemba: Connection, share: ShareArgument, tenant: TenantOption = "", etag: EtagOption = "") -> None:
    """Take a share back."""
    from pemba.cli import refs
    from pemba.v1 import shares_pb2

    request = shares_pb2.RevokeShareRequest(tenant_id=refs.tenant_id(pemba, tenant), share_id=share, etag=etag)
    answer = pemba.change(pemba.shares.RevokeShare, request)
    show(pemba.output, answer, [_row(answer.share)])


@reads(app, "show")
def show_(pemba: Connection, share: ShareArgument, tenant: TenantOption = "") -> None:
    """Show a share."""
    from pemba.cli import refs
    from pemba.v1 import shares_pb2

    request = shares_pb2.GetShareRequest(tenant_id=refs.tenant_id(pemba, tenant), share_id=share)
    answer = pemba.read(pemba.shares.GetShare, request)
    show(pemba.output, answer, [_row(answer.share)])


@reads(app, "list")
def list_(
    pemba: Connection,
    workspace: WorkspaceArgument,
    incoming: Annotated[
        bool, typer.Option("--incoming", help="Those that give the workspace's members a role on another.")
    ] = False,
    tenant: TenantOption = "",
    limit: LimitOption = 1000,
) -> None:
    """List the shares of a workspace."""
    from pemba.cli import refs
    from pemba.v1 import shares_pb2, types_pb2

    tenant_id = refs.tenant_id(pemba, tenant)
    outgoing = shares_pb2.SHARE_DIRECTION_OUTGOING
    request = shares_pb2.ListSharesRequest(
        tenant_id=tenant_id,
        workspace=types_pb2.ObjectRef(type="workspace", id=refs.workspace_id(pemba, tenant_id, workspace)),
        direction=shares_pb2.SHARE_DIRECTION_INCOMING if incoming else outgoing,
    )
    answer = pemba.list(pemba.shares.ListShares, request, "shares", limit)
    named = [ref for share in answer.shares for ref in (share.workspace, share.with_workspace)]
    names = refs.readable(pemba, tenant_id, named) if pemba.output is Output.TABLE else {}
    show(pemba.output, answer, [_row(share, names) for share in answer.shares], _COLUMNS)


def _row(share: shares_pb2.Share, names: Mapping[str, str] | None = None) -> Row:
    from pemba.v1 import types_pb2

    workspace, with_ = (
        (names or {}).get(ref.id, f"{ref.type}:{ref.id}") for ref in (share.workspace, share.with_workspace)
    )
    role = types_pb2.Role.Name(share.role).removeprefix("ROLE_").lower()
    expires = moment(share.expire_time) if share.HasField("expire_time") else "never"
    return dict(zip(_COLUMNS, (share.id, workspace, with_, role, expires), strict=True))
