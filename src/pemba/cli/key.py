"""`pemba key`: what services and people call Pemba with."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import EtagOption, LimitOption, TenantOption, changes, reads
from pemba.cli.output import Output, Row, moment, show
from pemba.cli.times import moment_of, span_of

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import api_keys_pb2

app = typer.Typer(name="key", help="Make, rotate and revoke API keys.", no_args_is_help=True)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, key_...")]
NoTenantOption = Annotated[
    bool, typer.Option("--no-tenant", help="Of keys that are confined to no tenant: system keys, and users' own.")
]
_COLUMNS = ("KEY", "NAME", "PREFIX", "AS", "SCOPES", "EXPIRES", "LAST USED")


@changes(app, "create")
def create(
    pemba: Connection,
    name: Annotated[str, typer.Argument(help="What people call it.")],
    scope: Annotated[
        list[str],
        typer.Option("--scope", "-s", help="check, read, write, admin or act_as; give it once for each."),
    ],
    user: Annotated[str, typer.Option(metavar="user:ID", help="The user as whom it authenticates.")] = "",
    workspace: Annotated[
        str, typer.Option(metavar="PATH", help="Confine it to this workspace, by path or id, and all below it.")
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="When it ends by itself: 2026-12-31T18:00Z, or in 90s, 45m, 12h, 30d.")
    ] = "",
    tenant: TenantOption = "",
    no_tenant: NoTenantOption = False,
) -> None:
    """Make a key, and print its secret: this once."""
    from pemba.cli import refs
    from pemba.v1 import api_keys_pb2

    _require_shows_secret(pemba)
    user_id = refs.user_id(user, "--user") if user else ""
    until = moment_of(expires, "--expires") if expires else None
    tenant_id = _tenant_id(pemba, tenant, no_tenant)
    request = api_keys_pb2.CreateApiKeyRequest(
        tenant_id=tenant_id,
        user_id=user_id,
        workspace_id=refs.workspace_id(pemba, tenant_id, workspace) if workspace else "",
        name=name,
        scopes=scope,
    )
    if until is not None:
        request.expire_time.FromDatetime(until)
    _show_with_secret(pemba, pemba.change(pemba.keys.CreateApiKey, request))


@reads(app, "list")
def list_(
    pemba: Connection,
    user: Annotated[str, typer.Option(metavar="user:ID", help="Only those of this user.")] = "",
    revoked: Annotated[bool, typer.Option("--revoked", help="Those that were revoked too.")] = False,
    tenant: TenantOption = "",
    no_tenant: NoTenantOption = False,
    limit: LimitOption = 1000,
) -> None:
    """List keys."""
    from pemba.cli import refs
    from pemba.v1 import api_keys_pb2

    request = api_keys_pb2.ListApiKeysRequest(
        tenant_id=_tenant_id(pemba, tenant, no_tenant),
        user_id=refs.user_id(user, "--user") if user else "",
        include_revoked=revoked,
    )
    answer = pemba.list(pemba.keys.ListApiKeys, request, "api_keys", limit)
    show(pemba.output, answer, [_row(key) for key in answer.api_keys], _COLUMNS)


@reads(app, "show")
def show_(pemba: Connection, key: KeyArgument, tenant: TenantOption = "", no_tenant: NoTenantOption = False) -> None:
    """Show a key, without its secret, which nobody knows."""
    from pemba.v1 import api_keys_pb2

    request = api_keys_pb2.GetApiKeyRequest(tenant_id=_tenant_id(pemba, tenant, no_tenant), api_key_id=key)
    answer = pemba.read(pemba.keys.GetApiKey, request)
    show(pemba.output, answer, [_row(answer.api_key)])


@changes(app, "revoke")
def revoke(
    pemba: Connection,
    key: KeyArgument,
    tenant: TenantOption = "",
    no_tenant: NoTenantOption = False,
    etag: EtagOption = "",
) -> None:
    """End a key, for good."""
    from pemba.v1 import api_keys_pb2

    tenant_id = _tenant_id(pemba, tenant, no_tenant)
    request = api_keys_pb2.RevokeApiKeyRequest(tenant_id=tenant_id, api_key_id=key, etag=etag)
    answer = pemba.change(pemba.keys.RevokeApiKey, request)
    show(pemba.output, answer, [_row(answer.api_key)])


@changes(app, "rotate")
def rotate(
    pemba: Connection,
    key: KeyArgument,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the secret of now stays good: 90s, 45m, 12h, 7d at most.")
    ] = "0s",
    tenant: TenantOption = "",
    no_tenant: NoTenantOption = False,
    etag: EtagOption = "",
) -> None:
    """Give a key a new secret, and print it: this once.  The old one ends at once, or after --overlap."""
    from pemba.v1 import api_keys_pb2

    _require_shows_secret(pemba)
    span = span_of(overlap, "--overlap")
    tenant_id = _tenant_id(pemba, tenant, no_tenant)
    request = api_keys_pb2.RotateApiKeyRequest(tenant_id=tenant_id, api_key_id=key, etag=etag)
    request.overlap.FromTimedelta(span)
    _show_with_secret(pemba, pemba.change(pemba.keys.RotateApiKey, request))


def _tenant_id(pemba: Connection, tenant: str, no_tenant: bool) -> str:
    """Empty for keys that are confined to none."""
    from pemba.cli import refs

    if no_tenant and tenant:
        raise typer.BadParameter("--no-tenant does not go with --tenant")
    return "" if no_tenant else refs.tenant_id(pemba, tenant)


def _require_shows_secret(pemba: Connection) -> None:
    if pemba.output is Output.TOKEN:
        raise typer.BadParameter("--output takes table or json here: the secret would be lost")


def _show_with_secret(
    pemba: Connection, answer: api_keys_pb2.CreateApiKeyResponse | api_keys_pb2.RotateApiKeyResponse
) -> None:
    """The secret is the last line, by itself."""
    show(pemba.output, answer, [_row(answer.api_key)])
    if answer.replayed:
        print("it was done before, and told its secret then; `pemba key rotate` gives another", file=sys.stderr)
    elif answer.secret and pemba.output is Output.TABLE:
        print(f"\n{answer.secret}")


def _row(key: api_keys_pb2.ApiKey) -> Row:
    expires = moment(key.expire_time) if key.HasField("expire_time") else "never"
    return dict(
        zip(
            _COLUMNS,
            (
                *(key.id, key.name, key.prefix, _acts_as(key), ",".join(key.scopes)),
                f"revoked {moment(key.revoke_time)}" if key.HasField("revoke_time") else expires,
                moment(key.last_used_time) if key.HasField("last_used_time") else "never",
            ),
            strict=True,
        )
    )


def _acts_as(key: api_keys_pb2.ApiKey) -> str:
    if key.user_id:
        return f"user:{key.user_id}"
    if key.workspace_id:
        return f"workspace:{key.workspace_id}"
    return "tenant" if key.tenant_id else "system"
