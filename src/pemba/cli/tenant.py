"""`pemba tenant`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, changes, reads
from pemba.cli.output import Row, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import tenants_pb2

app = typer.Typer(name="tenant", help="Create, rename, suspend, delete and list tenants.", no_args_is_help=True)

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="Its slug or id.")]
_COLUMNS = ("SLUG", "NAME", "STATUS", "ID", "CREATED")
_DELETION_COLUMNS = ("SLUG", "ID", "STATE", "LEFT", "UNDELIVERED", "STARTED", "FINISHED")
WAIT_SECONDS = 0.5


@changes(app, "create")
def create(
    pemba: Connection,
    slug: Annotated[str, typer.Argument(help="3 to 64 of a-z, 0-9 and -; for good.")],
    first_admin: Annotated[str, typer.Option(metavar="user:ID", help="The user who administers it first.")],
    name: Annotated[str, typer.Option(help="What people call it; the slug where not given.")] = "",
) -> None:
    """Create a tenant, its root workspace and its first admin."""
    from pemba.cli.refs import user_id
    from pemba.v1 import tenants_pb2

    request = tenants_pb2.CreateTenantRequest(
        slug=slug, name=name or slug, first_admin=user_id(first_admin, "--first-admin")
    )
    answer = pemba.change(pemba.tenants.CreateTenant, request)
    show(pemba.output, answer, [_row(answer.tenant)])


@reads(app, "get")
def get(pemba: Connection, tenant: TenantArgument) -> None:
    """Show a tenant."""
    from pemba.model import is_typeid
    from pemba.v1 import tenants_pb2

    field = "tenant_id" if is_typeid("ten", tenant) else "slug"
    answer = pemba.read(pemba.tenants.GetTenant, tenants_pb2.GetTenantRequest(**{field: tenant}))
    show(pemba.output, answer, [_row(answer.tenant)])


@reads(app, "list")
def list_(pemba: Connection, limit: LimitOption = 1000) -> None:
    """List tenants, by slug."""
    from pemba.v1 import tenants_pb2

    answer = pemba.list(pemba.tenants.ListTenants, tenants_pb2.ListTenantsRequest(), "tenants", limit)
    show(pemba.output, answer, [_row(tenant) for tenant in answer.tenants], _COLUMNS)


@changes(app, "update")
def update(
    pemba: Connection,
    tenant: TenantArgument,
    name: Annotated[str, typer.Option(help="The new name.")],
    etag: EtagOption = "",
) -> None:
    """Rename a tenant."""
    from pemba.cli.refs import tenant_id
    from pemba.v1 import tenants_pb2

    request = tenants_pb2.UpdateTenantRequest(tenant_id=tenant_id(pemba, tenant), name=name, etag=etag)
    answer = pemba.change(pemba.tenants.UpdateTenant, request)
    show(pemba.output, answer, [_row(answer.tenant)])


@changes(app, "suspend")
def suspend(pemba: Connection, tenant: TenantArgument, etag: EtagOption = "") -> None:
    """Suspend a tenant: every check in it is DENIED until it is activated."""
    from pemba.cli.refs import tenant_id
    from pemba.v1 import tenants_pb2

    request = tenants_pb2.SuspendTenantRequest(tenant_id=tenant_id(pemba, tenant), etag=etag)
    answer = pemba.change(pemba.tenants.SuspendTenant, request)
    show(pemba.output, answer, [_row(answer.tenant)])


@changes(app, "activate")
def activate(pemba: Connection, tenant: TenantArgument, etag: EtagOption = "") -> None:
    """Activate a suspended tenant, with all access as it was."""
    from pemba.cli.refs import tenant_id
    from pemba.v1 import tenants_pb2

    request = tenants_pb2.ActivateTenantRequest(tenant_id=tenant_id(pemba, tenant), etag=etag)
    answer = pemba.change(pemba.tenants.ActivateTenant, request)
    show(pemba.output, answer, [_row(answer.tenant)])


@changes(app, "delete")
def delete(
    pemba: Connection,
    tenant: TenantArgument,
    confirm_slug: Annotated[str, typer.Option("--confirm", metavar="SLUG", help="The tenant's slug, once more.")],
    wait: Annotated[bool, typer.Option("--wait", help="Until nothing is left of it, in SpiceDB neither.")] = False,
    etag: EtagOption = "",
) -> None:
    """Delete a tenant with all it has, for good; users stay."""
    from pemba.cli.refs import tenant_id
    from pemba.v1 import tenants_pb2

    request = tenants_pb2.DeleteTenantRequest(tenant_id=tenant_id(pemba, tenant), confirm_slug=confirm_slug, etag=etag)
    answer = pemba.change(pemba.tenants.DeleteTenant, request)
    if wait and not request.validate_only:
        answer.deletion.CopyFrom(_until_gone(pemba, answer.deletion.tenant_id))
    show(pemba.output, answer, [_deletion_row(answer.deletion)])


@reads(app, "deletion")
def deletion(
    pemba: Connection, tenant: Annotated[str, typer.Argument(metavar="TENANT", help="Its id, or the slug it had.")]
) -> None:
    """Show how far the deletion of a tenant is."""
    from pemba.model import is_typeid
    from pemba.v1 import tenants_pb2

    field = "tenant_id" if is_typeid("ten", tenant) else "slug"
    answer = pemba.read(pemba.tenants.GetTenantDeletion, tenants_pb2.GetTenantDeletionRequest(**{field: tenant}))
    show(pemba.output, answer, [_deletion_row(answer.deletion)])


def _until_gone(pemba: Connection, tenant_id: str) -> tenants_pb2.TenantDeletion:
    """Ask every half second; says on stderr how far it is."""
    import time

    from pemba.cli.progress import Progress
    from pemba.v1 import tenants_pb2

    progress = Progress("pemba tenant delete")
    request = tenants_pb2.GetTenantDeletionRequest(tenant_id=tenant_id)
    try:
        while True:
            now = pemba.read(pemba.tenants.GetTenantDeletion, request).deletion
            if _is_gone(now):
                return now
            progress.progress(f"records left: {_left(now)}, rows on their way to SpiceDB: {now.undelivered_rows}")
            time.sleep(WAIT_SECONDS)
    finally:
        progress.end()


def _is_gone(deletion: tenants_pb2.TenantDeletion) -> bool:
    return deletion.HasField("finish_time") and deletion.undelivered_rows == 0


def _left(deletion: tenants_pb2.TenantDeletion) -> int:
    return sum(each.left for each in deletion.counts)


def _deletion_row(deletion: tenants_pb2.TenantDeletion) -> Row:
    values = (
        deletion.slug,
        deletion.tenant_id,
        "gone" if _is_gone(deletion) else "under way",
        f"{_left(deletion)} of {sum(each.total for each in deletion.counts)}",
        str(deletion.undelivered_rows),
        moment(deletion.create_time),
        moment(deletion.finish_time) if deletion.HasField("finish_time") else "",
    )
    return dict(zip(_DELETION_COLUMNS, values, strict=True))


def _row(tenant: tenants_pb2.Tenant) -> Row:
    from pemba.v1 import tenants_pb2

    status = tenants_pb2.TenantStatus.Name(tenant.status).removeprefix("TENANT_STATUS_").lower()
    return dict(zip(_COLUMNS, (tenant.slug, tenant.name, status, tenant.id, moment(tenant.create_time)), strict=True))
