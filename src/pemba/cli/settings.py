"""`pemba settings`: what workspaces have set, by namespace."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pemba.cli.options import EtagOption, TenantOption, changes, reads, with_call_options
from pemba.cli.output import Output, Row, moment, show
from pemba.cli.workspace import WorkspaceArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pemba.cli.connection import Connection
    from pemba.v1 import workspaces_pb2

app = typer.Typer(name="settings", help="Read and change workspaces' settings and secrets.", no_args_is_help=True)

NamespaceArgument = Annotated[str, typer.Argument(metavar="NAMESPACE", help="For instance mail, or mail.incoming.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The setting's name.")]
_COLUMNS = ("NAMESPACE", "NAME", "VALUE")
_SECRET = "(secret)"  # noqa: S105 - what stands for one


@reads(app, "get")
def get(
    pemba: Connection,
    workspace: WorkspaceArgument,
    namespace: Annotated[list[str] | None, typer.Argument(help="Those of these namespaces; else of all.")] = None,
    tenant: TenantOption = "",
) -> None:
    """Show settings; of secrets only that there are some."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.GetSettingsRequest(tenant_id=tenant_id, workspace_id=id_, namespaces=namespace or ())
    answer = pemba.read(pemba.workspaces.GetSettings, request)
    show(pemba.output, answer, _rows(answer.settings), _COLUMNS)


@changes(app, "set")
def set_(
    pemba: Connection,
    workspace: WorkspaceArgument,
    namespace: NamespaceArgument,
    name: NameArgument,
    value: Annotated[str | None, typer.Argument(help="JSON; what is no JSON is a text.  None with --hidden.")] = None,
    secret: Annotated[
        bool, typer.Option("--hidden", help="A secret: it is asked for, or read from standard input.")
    ] = False,
    tenant: TenantOption = "",
    etag: EtagOption = "",
) -> None:
    """Set one setting, for instance: settings set eng mail port 25."""
    from pemba.v1 import workspaces_pb2

    if secret == (value is not None):
        raise typer.BadParameter(
            "VALUE goes without --hidden: a secret is asked for, or read from standard input"
            if secret
            else "VALUE is missing: it takes JSON, or a text"
        )
    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.UpdateSettingsRequest(
        tenant_id=tenant_id, workspace_id=id_, namespace=namespace, etag=etag
    )
    if value is None:
        request.secrets[name] = _asked_for(name)
    else:
        request.values[name] = _parsed(value)
    answer = pemba.change(pemba.workspaces.UpdateSettings, request)
    show(pemba.output, answer, _rows([answer.settings]), _COLUMNS)


@changes(app, "unset")
def unset(
    pemba: Connection,
    workspace: WorkspaceArgument,
    namespace: NamespaceArgument,
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="The settings' names.")],
    tenant: TenantOption = "",
    etag: EtagOption = "",
) -> None:
    """Remove settings and secrets."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.UpdateSettingsRequest(
        tenant_id=tenant_id, workspace_id=id_, namespace=namespace, remove=name, etag=etag
    )
    answer = pemba.change(pemba.workspaces.UpdateSettings, request)
    show(pemba.output, answer, _rows([answer.settings]), _COLUMNS)


@reads(app, "secret")
def secret(
    pemba: Connection,
    workspace: WorkspaceArgument,
    namespace: NamespaceArgument,
    name: NameArgument,
    tenant: TenantOption = "",
) -> None:
    """Print a secret as it is; it takes a key with the scope `admin`, and is audited."""
    from pemba.v1 import workspaces_pb2

    tenant_id, id_ = _ids(pemba, tenant, workspace)
    request = workspaces_pb2.GetSecretSettingRequest(
        tenant_id=tenant_id, workspace_id=id_, namespace=namespace, name=name
    )
    answer = pemba.read(pemba.workspaces.GetSecretSetting, request)
    if pemba.output is Output.TABLE:
        print(answer.value)
    else:
        show(pemba.output, answer, [])


def reencrypt(pemba: Connection) -> None:
    """Encrypt every secret under the first root secret, after a new one was put first; of all tenants."""
    from pemba.v1 import operations_pb2

    answer = pemba.read(pemba.operations.ReencryptSecrets, operations_pb2.ReencryptSecretsRequest())
    if pemba.output is not Output.TABLE:
        show(pemba.output, answer, [])
        return
    print(f"{answer.reencrypted} secrets are under the first root secret now that were not")
    if answer.unreadable:
        print(f"{answer.unreadable} cannot be decrypted with the root secrets as they are: set them anew")


app.command("reencrypt")(with_call_options(reencrypt, ("output", "endpoint", "timeout")))


def _ids(pemba: Connection, tenant: str, workspace: str) -> tuple[str, str]:
    from pemba.cli import refs

    tenant_id = refs.tenant_id(pemba, tenant)
    return tenant_id, refs.workspace_id(pemba, tenant_id, workspace)


def _asked_for(name: str) -> str:
    """Not an argument: those are in histories and lists of processes."""
    if sys.stdin.isatty():
        return str(typer.prompt(name, hide_input=True, err=True))
    return sys.stdin.read().removesuffix("\n")


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _rows(settings: Iterable[workspaces_pb2.Settings]) -> list[Row]:
    from pemba.rpc.settings import plain

    rows: list[Row] = []
    for each in settings:
        values = {name: json.dumps(value, ensure_ascii=False) for name, value in plain(each.values).items()}
        named = {**values, **{one.name: f"{_SECRET} since {moment(one.update_time)}" for one in each.secrets}}
        rows += [dict(zip(_COLUMNS, (each.namespace, name, told), strict=True)) for name, told in sorted(named.items())]
    return rows
