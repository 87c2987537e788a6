"""`pemba workspace`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, print_rich, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pemba.cli.connection import Connection
    from pemba.v1 import workspaces_pb2

app = typer.Typer(name="workspace", help="Create, move, archive and list workspaces.", no_args_is_help=True)

WorkspaceArgument = Annotated[
    str, typer.Argument(metavar="WORKSPACE", help="Its path of slugs (eng/backend; / is the root) or its id.")
]
_COLUMNS = ("PATH", "NAME", "KIND", "ID", "ARCHIVED")


@changes(app, "create")
def create(
    pemba: Connection,
    path: Annotated[str, typer.Argument(help="Its slug, after its parent's path where that is not the root.")],
    tenant: TenantOption = "",
    name: Annotated[str, typer.Option(help="What people call it; the slug where not given.")] = "",
    parent: Annotated[str, typer.Option(help="The parent by id or path, where PATH is the slug alone.")] = "",
    owner: Annotated[str, typer.Option(metavar="user:ID", help="The user who owns it.")] = "",
) -> None:
    """Create a workspace, for instance eng, or eng/backend in eng."""
    from pemba.cli import refs
    from pemba.v1 import workspaces_pb2

    above, _, slug = path.strip("/").rpartition("/")
    if above and parent:
        raise typer.BadParameter("--parent is given twice: PATH names one too; leave one of them out")
    tenant_id = refs.tenant_id(pemba, tenant)
    request = workspaces_pb2.CreateWorkspaceRequest(
        tenant_id=tenant_id,
        parent_id=refs.workspace_id(pemba, tenant_id, parent or above),
        slug=slug,
        name=name or slug,
        owner=refs.user_id(owner, "--owner") if owner else "",
    )
    answer = pemba.change(pemba.workspaces.CreateWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@changes(app, "personal")
def personal(
    pemba: Connection,
    user: Annotated[str, typer.Argument(metavar="user:ID", help="Whose; the --as user where not given.")] = "",
    tenant: TenantOption = "",
) -> None:
    """Show a user's personal workspace; where there is none, it is made."""
    from pemba.cli import refs
    from pemba.v1 import workspaces_pb2

    request = workspaces_pb2.EnsurePersonalWorkspaceRequest(
        tenant_id=refs.tenant_id(pemba, tenant), user_id=refs.user_id(user, "USER") if user else ""
    )
    answer = pemba.change(pemba.workspaces.EnsurePersonalWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@reads(app, "get")
def get(pemba: Connection, workspace: WorkspaceArgument, tenant: TenantOption = "") -> None:
    """Show a workspace."""
    from pemba.cli import refs

    answer = refs.get_workspace(pemba, refs.tenant_id(pemba, tenant), workspace)
    show(pemba.output, answer, _rows([answer.workspace]))


@reads(app, "list")
def list_(
    pemba: Connection,
    parent: Annotated[str, typer.Argument(help="Those below it, by path or id; the root where not given.")] = "/",
    tenant: TenantOption = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="All below, not the children alone.")] = False,
    tree: Annotated[bool, typer.Option("--tree", help="As a tree, all below.")] = False,
    include_archived: Annotated[bool, typer.Option("--include-archived", help="Archived ones as well.")] = False,
    subject: Annotated[str, typer.Option(metavar="user:ID", help="Those on which this user has --permission.")] = "",
    permission: Annotated[str, typer.Option(help="With --subject: own, administer, edit or view.")] = "",
    order_by: Annotated[str, typer.Option(help="slug, name or create_time; 'name desc' for the reverse.")] = "",
    filter_: Annotated[str, typer.Option("--filter", help="name:text, slug=text, joined with AND.")] = "",
    limit: LimitOption = 1000,
) -> None:
    """List the workspaces below one."""
    from pemba.cli import refs
    from pemba.v1 import workspaces_pb2

    if tree and (subject or order_by or filter_):
        raise typer.BadParameter("--tree goes without --subject, --order-by and --filter; -r lists all below")
    tenant_id = refs.tenant_id(pemba, tenant)
    request = workspaces_pb2.ListWorkspacesRequest(
        tenant_id=tenant_id,
        parent_id="" if subject and parent == "/" else refs.workspace_id(pemba, tenant_id, parent),
        recursive=recursive or tree,
        include_archived=include_archived,
        subject=refs.subject_ref(subject, "--subject") if subject else None,
        permission=permission,
        order_by=order_by,
        filter=filter_,
    )
    answer = pemba.list(pemba.workspaces.ListWorkspaces, request, "workspaces", limit)
    if tree and pemba.output is Output.TABLE:
        _print_tree(parent, request.parent_id, answer.workspaces)
    else:
        show(pemba.output, answer, _rows(answer.workspaces), _COLUMNS)


@changes(app, "update")
def update(
    pemba: Connection,
    workspace: WorkspaceArgument,
    name: Annotated[str, typer.Option(help="The new name.")],
    tenant: TenantOption = "",
    etag: EtagOption = "",
) -> None:
    """Rename a workspace; its slug stays."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.UpdateWorkspaceRequest(tenant_id=tenant_id, workspace_id=id_, name=name, etag=etag)
    answer = pemba.change(pemba.workspaces.UpdateWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@changes(app, "move")
def move(
    pemba: Connection,
    workspace: WorkspaceArgument,
    new_parent: Annotated[str, typer.Argument(help="The workspace to put it into, by path or id.")],
    tenant: TenantOption = "",
    etag: EtagOption = "",
) -> None:
    """Put a workspace, with all below it, into another."""
    from pemba.cli import refs
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.MoveWorkspaceRequest(
        tenant_id=tenant_id,
        workspace_id=id_,
        new_parent_id=refs.workspace_id(pemba, tenant_id, new_parent),
        etag=etag,
    )
    answer = pemba.change(pemba.workspaces.MoveWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@changes(app, "archive")
def archive(pemba: Connection, workspace: WorkspaceArgument, tenant: TenantOption = "", etag: EtagOption = "") -> None:
    """Archive a workspace with all below it: nobody may do anything there until it is unarchived."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.ArchiveWorkspaceRequest(tenant_id=tenant_id, workspace_id=id_, etag=etag)
    answer = pemba.change(pemba.workspaces.ArchiveWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@changes(app, "unarchive")
def unarchive(
    pemba: Connection, workspace: WorkspaceArgument, tenant: TenantOption = "", etag: EtagOption = ""
) -> None:
    """Bring back a workspace, with what was archived along with it."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.UnarchiveWorkspaceRequest(tenant_id=tenant_id, workspace_id=id_, etag=etag)
    answer = pemba.change(pemba.workspaces.UnarchiveWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


@changes(app, "delete")
def delete(pemba: Connection, workspace: WorkspaceArgument, tenant: TenantOption = "", etag: EtagOption = "") -> None:
    """Delete a workspace that has nothing below it, for good."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.DeleteWorkspaceRequest(tenant_id=tenant_id, workspace_id=id_, etag=etag)
    answer = pemba.change(pemba.workspaces.DeleteWorkspace, request)
    show(pemba.output, answer, _rows([answer.workspace]))


def _ids(pemba: Connection, tenant: str, workspace: str) -> tuple[str, str]:
    from pemba.cli import refs

    tenant_id = refs.tenant_id(pemba, tenant)
    return tenant_id, refs.workspace_id(pemba, tenant_id, workspace)


def _rows(workspaces: Sequence[workspaces_pb2.Workspace]) -> list[Row]:
    from pemba.cli.refs import paths_of

    paths = paths_of({workspace.id: (workspace.parent_id, workspace.slug) for workspace in workspaces})
    whose = {w.id: f"(of user:{w.personal_user_id})" for w in workspaces if w.personal_user_id}
    return [_row(workspace, whose.get(workspace.id, paths[workspace.id])) for workspace in workspaces]


def _row(workspace: workspaces_pb2.Workspace, path: str) -> Row:
    from pemba.v1 import workspaces_pb2

    kind = workspaces_pb2.WorkspaceKind.Name(workspace.kind).removeprefix("WORKSPACE_KIND_").lower()
    archived = moment(workspace.archive_time) if workspace.HasField("archive_time") else ""
    return dict(zip(_COLUMNS, (path, workspace.name, kind, workspace.id, archived), strict=True))


def _print_tree(title: str, root_id: str, workspaces: Sequence[workspaces_pb2.Workspace]) -> None:
    from rich.tree import Tree

    branches = {root_id: Tree(title)}
    for workspace in workspaces:  # parents come first
        label = workspace.slug + (" (archived)" if workspace.HasField("archive_time") else "")
        branches[workspace.id] = branches[workspace.parent_id].add(label)
    print_rich(branches[root_id])
