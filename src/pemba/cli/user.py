"""`pemba user`: people, in whatever tenants they have roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Row, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import memberships_pb2, users_pb2, workspaces_pb2

app = typer.Typer(name="user", help="Create, suspend, deactivate and list users.", no_args_is_help=True)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="user:ID, for instance user:alice; or the ID alone.")]
_COLUMNS = ("USER", "EMAIL", "NAME", "STATUS", "LAST LOGIN", "CREATED")


@changes(app, "create")
def create(
    pemba: Connection,
    user: UserArgument,
    email: Annotated[str, typer.Option(help="Unique, whatever its case.")] = "",
    name: Annotated[str, typer.Option(help="What people call them.")] = "",
    workspace_in: Annotated[
        str, typer.Option(metavar="TENANT", help="Also make a workspace of their own in this tenant, by slug or id.")
    ] = "",
    personal: Annotated[
        bool, typer.Option("--personal", help="With --workspace-in: their personal workspace, which nobody else sees.")
    ] = False,
) -> None:
    """Create a user, with a workspace of their own where one is asked for."""
    from pemba.cli import refs
    from pemba.v1 import users_pb2, workspaces_pb2

    if personal and not workspace_in:
        raise typer.BadParameter("--personal goes with --workspace-in: it takes the tenant")

    request = users_pb2.CreateUserRequest(id=_id(user), email=email, display_name=name)
    if workspace_in:
        request.create_workspace.tenant_id = refs.tenant_id(pemba, workspace_in)
    if personal:
        request.create_workspace.kind = workspaces_pb2.WORKSPACE_KIND_PERSONAL
    answer = pemba.change(pemba.users.CreateUser, request)
    show(pemba.output, answer, [_row(answer.user)])


@reads(app, "get")
def get(pemba: Connection, user: UserArgument) -> None:
    """Show a user."""
    from pemba.v1 import users_pb2

    answer = pemba.read(pemba.users.GetUser, users_pb2.GetUserRequest(user_id=_id(user)))
    show(pemba.output, answer, [_row(answer.user)])


@reads(app, "list")
def list_(
    pemba: Connection,
    order_by: Annotated[str, typer.Option(help="id, email or create_time; 'email desc' for the reverse.")] = "",
    filter_: Annotated[
        str, typer.Option("--filter", help="status=suspended, email:beginning, display_name:beginning, with AND.")
    ] = "",
    limit: LimitOption = 1000,
) -> None:
    """List users."""
    from pemba.v1 import users_pb2

    request = users_pb2.ListUsersRequest(order_by=order_by, filter=filter_)
    answer = pemba.list(pemba.users.ListUsers, request, "users", limit)
    show(pemba.output, answer, [_row(user) for user in answer.users], _COLUMNS)


@changes(app, "update")
def update(
    pemba: Connection,
    user: UserArgument,
    email: Annotated[str | None, typer.Option(help="The new email; '' for none.")] = None,
    name: Annotated[str | None, typer.Option(help="The new name; '' for none.")] = None,
    etag: EtagOption = "",
) -> None:
    """Change a user's email or name."""
    from pemba.v1 import users_pb2

    if email is None and name is None:
        raise typer.BadParameter("--email or --name is missing: one of them is what changes")
    request = users_pb2.UpdateUserRequest(user_id=_id(user), email=email, display_name=name, etag=etag)
    answer = pemba.change(pemba.users.UpdateUser, request)
    show(pemba.output, answer, [_row(answer.user)])


@changes(app, "suspend")
def suspend(
    pemba: Connection,
    user: UserArgument,
    force: Annotated[bool, typer.Option("--force", help="Also as the last active admin of a tenant.")] = False,
    etag: EtagOption = "",
) -> None:
    """Suspend a user: every check of them is DENIED until they are activated."""
    from pemba.v1 import users_pb2

    request = users_pb2.SuspendUserRequest(user_id=_id(user), force=force, etag=etag)
    answer = pemba.change(pemba.users.SuspendUser, request)
    show(pemba.output, answer, [_row(answer.user)])


@changes(app, "activate")
def activate(pemba: Connection, user: UserArgument, etag: EtagOption = "") -> None:
    """Activate a suspended user, with all access as it was."""
    from pemba.v1 import users_pb2

    answer = pemba.change(pemba.users.ActivateUser, users_pb2.ActivateUserRequest(user_id=_id(user), etag=etag))
    show(pemba.output, answer, [_row(answer.user)])


@changes(app, "deactivate")
def deactivate(pemba: Connection, user: UserArgument, etag: EtagOption = "") -> None:
    """Deactivate a user and take all their roles away, for good."""
    from pemba.v1 import users_pb2

    answer = pemba.change(pemba.users.DeactivateUser, users_pb2.DeactivateUserRequest(user_id=_id(user), etag=etag))
    show(pemba.output, answer, [_row(answer.user)])


@reads(app, "memberships")
def memberships(
    pemba: Connection,
    user: UserArgument,
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Those in one tenant, by slug or id.")] = "",
    limit: LimitOption = 1000,
) -> None:
    """List the roles that a user has directly, in every tenant."""
    from pemba.cli import refs
    from pemba.v1 import users_pb2

    request = users_pb2.ListUserMembershipsRequest(
        user_id=_id(user), tenant_id=refs.tenant_id(pemba, tenant) if tenant else ""
    )
    answer = pemba.list(pemba.users.ListUserMemberships, request, "memberships", limit)
    rows = [_membership_row(membership) for membership in answer.memberships]
    show(pemba.output, answer, rows, ("TENANT", "OBJECT", "ROLE", "JOINED"))


@changes(app, "current")
def current(
    pemba: Connection,
    user: UserArgument,
    workspace: Annotated[str, typer.Argument(help="Choose this one, by path or id.")] = "",
    tenant: TenantOption = "",
) -> None:
    """Show the workspace that a user works in, or choose another."""
    from pemba.cli import refs
    from pemba.v1 import users_pb2

    if not workspace:
        tenant_id = refs.tenant_id(pemba, tenant) if tenant or pemba.default_tenant else ""
        question = users_pb2.GetCurrentWorkspaceRequest(user_id=_id(user), tenant_id=tenant_id)
        found = pemba.read(pemba.users.GetCurrentWorkspace, question)
        show(pemba.output, found, [_workspace_row(found.workspace, chosen=found.chosen)])
        return
    tenant_id = refs.tenant_id(pemba, tenant)
    request = users_pb2.SetCurrentWorkspaceRequest(
        user_id=_id(user), tenant_id=tenant_id, workspace_id=refs.workspace_id(pemba, tenant_id, workspace)
    )
    answer = pemba.change(pemba.users.SetCurrentWorkspace, request)
    show(pemba.output, answer, [_workspace_row(answer.workspace, chosen=True)])


@changes(app, "record-login")
def record_login(pemba: Connection, user: UserArgument) -> None:
    """Remember that a user logged in now."""
    from pemba.v1 import users_pb2

    answer = pemba.change(pemba.users.RecordLogin, users_pb2.RecordLoginRequest(user_id=_id(user)))
    show(pemba.output, answer, [_row(answer.user)])


def _id(text: str) -> str:
    """Of `user:alice`, or of `alice`; after `user:` all is the id."""
    id_ = text.removeprefix("user:")
    if not id_:
        raise typer.BadParameter(f"USER takes user:ID, for instance user:alice, not {text!r}")
    return id_


def _row(user: users_pb2.User) -> Row:
    from pemba.v1 import users_pb2

    status = users_pb2.UserStatus.Name(user.status).removeprefix("USER_STATUS_").lower()
    values = (
        f"user:{user.id}",
        user.email,
        user.display_name,
        f"{status}, being activated" if user.activating else status,
        moment(user.last_login_time) if user.HasField("last_login_time") else "",
        moment(user.create_time),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _membership_row(membership: memberships_pb2.Membership) -> Row:
    from pemba.v1 import types_pb2

    return {
        "TENANT": membership.tenant_id,
        "OBJECT": f"{membership.object.type}:{membership.object.id}",
        "ROLE": types_pb2.Role.Name(membership.role).removeprefix("ROLE_").lower(),
        "JOINED": moment(membership.join_time),
    }


def _workspace_row(workspace: workspaces_pb2.Workspace, *, chosen: bool) -> Row:
    return {
        "WORKSPACE": workspace.slug,
        "NAME": workspace.name,
        "ID": workspace.id,
        "TENANT": workspace.tenant_id,
        "CHOSEN": "yes" if chosen else "no, the default",
    }
