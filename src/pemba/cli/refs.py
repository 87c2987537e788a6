"""Text forms of subjects and objects, and the names (slugs, paths) that stand for ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer

from pemba.cli.connection import MAX_PAGE_SIZE, Connection
from pemba.cli.failure import CallFailed
from pemba.model import is_typeid
from pemba.v1 import groups_pb2, tenants_pb2, types_pb2, workspaces_pb2

SUBJECT_FORM = "takes user:ID, for instance user:alice"
HOLDER_FORM = "takes user:ID, group:SLUG, group:grp_... or api_key:key_..."
OBJECT_FORM = "takes workspace:PATH, workspace:ws_..., tenant:SLUG or tenant:ten_..."


def user_id(text: str, argument: str) -> str:
    """The id in `user:alice`; after `user:` all is the id.  Raises BadParameter, naming `argument`."""
    kind, _, id_ = text.partition(":")
    if kind != "user" or not id_:
        raise typer.BadParameter(f"{argument} {SUBJECT_FORM}, not {text!r}")
    return id_


def subject_ref(text: str, argument: str) -> types_pb2.SubjectRef:
    """The subject that `user:alice` or `group:grp_...#member` names.  Raises BadParameter, naming `argument`."""
    kind, _, rest = text.partition(":")
    if not kind or not rest:
        raise typer.BadParameter(f"{argument} {SUBJECT_FORM}, not {text!r}")
    id_, _, relation = (rest, "", "") if kind == "user" else rest.partition("#")
    return types_pb2.SubjectRef(type=kind, id=id_, relation=relation)


def holder_ref(pemba: Connection, tenant: str, text: str, argument: str) -> types_pb2.SubjectRef:
    """As `subject_ref`, a group also by its slug, with or without `#member`: whoever can have a role."""
    kind, _, name = text.partition(":")
    if not kind or not name:
        raise typer.BadParameter(f"{argument} {HOLDER_FORM}, not {text!r}")
    if kind != "group":
        return subject_ref(text, argument)
    id_, _, relation = name.partition("#")
    return types_pb2.SubjectRef(type=kind, id=group_id(pemba, tenant, id_), relation=relation)


def get_group(pemba: Connection, tenant: str, text: str) -> groups_pb2.GetGroupResponse:
    """The group that an id or a slug names."""
    name = text.removeprefix("group:")
    if is_typeid("grp", name):
        request = groups_pb2.GetGroupRequest(tenant_id=tenant, group_id=name)
    else:
        request = groups_pb2.GetGroupRequest(tenant_id=tenant, slug=name)
    return pemba.read(pemba.groups.GetGroup, request)


def group_id(pemba: Connection, tenant: str, text: str) -> str:
    """The id of the group that an id or a slug names; an id needs no call."""
    name = text.removeprefix("group:")
    return name if is_typeid("grp", name) else get_group(pemba, tenant, name).group.id


def group_slugs(pemba: Connection, tenant: str) -> dict[str, str]:
    """Slugs of groups by id: of the first 1,000 that the caller may see, for tables that do well without."""
    request = groups_pb2.ListGroupsRequest(tenant_id=tenant, page_size=MAX_PAGE_SIZE)
    try:
        return {group.id: group.slug for group in pemba.read(pemba.groups.ListGroups, request).groups}
    except CallFailed:
        return {}


def tenant_id(pemba: Connection, text: str) -> str:
    """The id of the tenant that an id or a slug names; without either, PEMBA_TENANT counts."""
    name = text or pemba.default_tenant
    if not name:
        raise typer.BadParameter("--tenant is missing: it takes a tenant's slug or id; PEMBA_TENANT sets it for all")
    if is_typeid("ten", name):
        return name
    return pemba.read(pemba.tenants.GetTenant, tenants_pb2.GetTenantRequest(slug=name)).tenant.id


def get_workspace(pemba: Connection, tenant: str, text: str) -> workspaces_pb2.GetWorkspaceResponse:
    """The workspace that an id or a path of slugs (`eng/backend`; `/` is the root) names."""
    name = text.removeprefix("workspace:")
    if is_typeid("ws", name):
        request = workspaces_pb2.GetWorkspaceRequest(tenant_id=tenant, workspace_id=name)
    else:
        request = workspaces_pb2.GetWorkspaceRequest(tenant_id=tenant, path=name.strip("/"))
    return pemba.read(pemba.workspaces.GetWorkspace, request)


def workspace_id(pemba: Connection, tenant: str, text: str) -> str:
    """The id of the workspace that an id or a path names; an id needs no call."""
    name = text.removeprefix("workspace:")
    return name if is_typeid("ws", name) else get_workspace(pemba, tenant, name).workspace.id


def object_ref(pemba: Connection, tenant: str, text: str, argument: str) -> types_pb2.ObjectRef:
    """The object that `workspace:eng/backend`, `tenant:acme` or either with an id names.

    Other types go through as they are.  Raises BadParameter, naming `argument`.
    """
    kind, _, name = text.partition(":")
    if not kind or not name:
        raise typer.BadParameter(f"{argument} {OBJECT_FORM}, not {text!r}")
    if kind == "workspace":
        return types_pb2.ObjectRef(type=kind, id=workspace_id(pemba, tenant, name))
    return types_pb2.ObjectRef(type=kind, id=tenant_id(pemba, name) if kind == "tenant" else name)


def readable(pemba: Connection, tenant: str, refs: Sequence[types_pb2.ObjectRef]) -> dict[str, str]:
    """Objects as commands take them, by id: `workspace:eng/backend` where that is known, else with the id.

    Known are the first 1,000 workspaces, to those who may list them: an answer does not fail for want of names.
    """
    ids = {ref.id for ref in refs if ref.type == "workspace"}
    paths = _paths(pemba, tenant) if ids else {}
    return {ref.id: f"{ref.type}:{paths.get(ref.id, ref.id)}" for ref in refs}


def _paths(pemba: Connection, tenant: str) -> dict[str, str]:
    root = workspaces_pb2.GetWorkspaceRequest(tenant_id=tenant, path="")
    everything = workspaces_pb2.ListWorkspacesRequest(
        tenant_id=tenant, recursive=True, include_archived=True, page_size=MAX_PAGE_SIZE
    )
    try:
        root_id = pemba.read(pemba.workspaces.GetWorkspace, root).workspace.id
        listed = pemba.read(pemba.workspaces.ListWorkspaces, everything).workspaces
    except CallFailed:
        return {}
    return {root_id: "/"} | paths_of({each.id: (each.parent_id, each.slug) for each in listed})


def paths_of(nodes: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Id to path, from id to (parent's id, slug): as far up as `nodes` go."""
    paths: dict[str, str] = {}
    for id_ in nodes:
        slugs, at = [], id_
        while at in nodes:
            at, slug = nodes[at]
            slugs.append(slug)
        paths[id_] = "/".join(reversed(slugs))
    return paths
