"""`pemba lookup`: on what somebody may do something, and who may do it somewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.check import AtLeastAsFreshOption, FullyConsistentOption, consistency_of
from pemba.cli.options import TenantOption, reads
from pemba.cli.output import Output, as_dict, print_json, print_table

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import permissions_pb2

app = typer.Typer(
    name="lookup", help="On what may somebody do this, and who may do it there: all of them.", no_args_is_help=True
)

PermissionArgument = Annotated[
    str, typer.Argument(help="own, administer, edit or view on a workspace; administer or view on a tenant.")
]
PartOption = Annotated[int, typer.Option("--limit", min=0, help="How many to list at most; 0: all.")]
CursorOption = Annotated[
    str, typer.Option("--cursor", help="Go on after the item that had this cursor (see --output json).")
]


@reads(app, "resources")
def resources(
    pemba: Connection,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="user:ID, for instance user:alice.")],
    permission: PermissionArgument,
    type_: Annotated[str, typer.Option("--type", help="workspace or tenant.")] = "workspace",
    tenant: TenantOption = "",
    limit: PartOption = 0,
    cursor: CursorOption = "",
    at_least_as_fresh: AtLeastAsFreshOption = "",
    fully_consistent: FullyConsistentOption = False,
) -> None:
    """List the objects on which a subject has a permission."""
    from pemba.cli import refs
    from pemba.v1 import permissions_pb2

    consistency = consistency_of(at_least_as_fresh, fully_consistent)
    subject_ref = refs.subject_ref(subject, "SUBJECT")
    request = permissions_pb2.LookupResourcesRequest(
        tenant_id=refs.tenant_id(pemba, tenant),
        type=type_,
        permission=permission,
        subject=subject_ref,
        consistency=consistency,
        limit=limit,
        cursor=cursor,
    )
    messages = pemba.read_all(pemba.permissions.LookupResources, request)
    found = [item.resource for item in messages[1:]]
    names = refs.readable(pemba, request.tenant_id, found) if pemba.output is Output.TABLE else {}
    _print(pemba.output, messages, "resource", names)


@reads(app, "subjects")
def subjects(
    pemba: Connection,
    resource: Annotated[
        str,
        typer.Argument(metavar="RESOURCE", help="workspace:PATH or workspace:ws_..., tenant:SLUG or tenant:ten_..."),
    ],
    permission: PermissionArgument,
    type_: Annotated[str, typer.Option("--type", help="user, group or api_key.")] = "user",
    tenant: TenantOption = "",
    limit: PartOption = 0,
    cursor: CursorOption = "",
    at_least_as_fresh: AtLeastAsFreshOption = "",
    fully_consistent: FullyConsistentOption = False,
) -> None:
    """List the subjects that have a permission on an object."""
    from pemba.cli import refs
    from pemba.v1 import permissions_pb2

    consistency = consistency_of(at_least_as_fresh, fully_consistent)
    tenant_id = refs.tenant_id(pemba, tenant)
    request = permissions_pb2.LookupSubjectsRequest(
        tenant_id=tenant_id,
        resource=refs.object_ref(pemba, tenant_id, resource, "RESOURCE"),
        permission=permission,
        subject_type=type_,
        consistency=consistency,
        limit=limit,
        cursor=cursor,
    )
    _print(pemba.output, pemba.read_all(pemba.permissions.LookupSubjects, request), "subject", {})


_Messages = Sequence["permissions_pb2.LookupResourcesResponse"] | Sequence["permissions_pb2.LookupSubjectsResponse"]


def _print(output: Output, messages: _Messages, field: str, names: Mapping[str, str]) -> None:
    """The whole stream or, where it did not end well, none of it."""
    from pemba.v1 import errors_pb2

    first, items = messages[0], messages[1:]
    reason = errors_pb2.ErrorReason.Name(first.reason)
    if output is Output.JSON:
        found = [
            {key: value for key, value in as_dict(item).items() if key not in ("reason", "token")} for item in items
        ]
        print_json({f"{field}s": found, "reason": reason, "token": first.token})
    elif output is Output.TOKEN:
        print(first.token)
    else:
        print_table([_row(item, field, names) for item in items], (field.upper(), "DECISION"))
        if first.reason:
            print(f"nothing is listed: {reason.removeprefix('ERROR_REASON_')}", file=sys.stderr)


def _row(
    item: permissions_pb2.LookupResourcesResponse | permissions_pb2.LookupSubjectsResponse,
    field: str,
    names: Mapping[str, str],
) -> dict[str, str]:
    from pemba.v1 import permissions_pb2

    ref = getattr(item, field)
    relation = f"#{ref.relation}" if getattr(ref, "relation", "") else ""
    decision = permissions_pb2.Decision.Name(item.decision).removeprefix("DECISION_")
    needs = f" (needs {', '.join(item.missing_context)})" if item.missing_context else ""
    name = names.get(ref.id, f"{ref.type}:{ref.id}{relation}")
    return {field.upper(): name, "DECISION": decision + needs}
