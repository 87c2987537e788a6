"""`pemba check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import ExitCode
from pemba.cli.options import TenantOption
from pemba.cli.output import Output, as_dict, coloured, print_json, print_rich, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import errors_pb2, permissions_pb2, types_pb2

AtLeastAsFreshOption = Annotated[
    str, typer.Option(metavar="TOKEN", help="A change's token: answer with that change in force, or fail.")
]
FullyConsistentOption = Annotated[
    bool, typer.Option("--fully-consistent", help="Answer with every committed change in force, or fail.")
]


def check(
    pemba: Connection,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="user:ID, for instance user:alice.")],
    permission: Annotated[
        str,
        typer.Argument(
            help="own, administer, edit or view on a workspace; administer or view on a tenant. Not with --all.",
        ),
    ],
    resource: Annotated[
        str,
        typer.Argument(
            metavar="RESOURCE",
            help="workspace:PATH or workspace:ws_..., tenant:SLUG or tenant:ten_...",
            show_default=False,
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Every permission: pemba check SUBJECT RESOURCE --all (0: one is ALLOWED).")
    ] = False,
    tenant: TenantOption = "",
    at_least_as_fresh: AtLeastAsFreshOption = "",
    fully_consistent: FullyConsistentOption = False,
) -> None:
    """Ask whether a subject may do something: ALLOWED (exit code 0), DENIED or CONDITIONAL (1)."""
    from pemba.cli import refs
    from pemba.v1 import permissions_pb2

    consistency = consistency_of(at_least_as_fresh, fully_consistent)
    if every:
        _require_two(permission, resource)
        _check_all(pemba, subject, permission, tenant, consistency)
        return
    if not resource:
        raise typer.BadParameter(
            "RESOURCE is missing: pemba check SUBJECT PERMISSION RESOURCE, or SUBJECT RESOURCE --all"
        )
    subject_ref = refs.subject_ref(subject, "SUBJECT")
    tenant_id = refs.tenant_id(pemba, tenant)
    request = permissions_pb2.CheckRequest(
        tenant_id=tenant_id,
        resource=refs.object_ref(pemba, tenant_id, resource, "RESOURCE"),
        permission=permission,
        subject=subject_ref,
        consistency=consistency,
    )
    answer = pemba.read(pemba.permissions.Check, request)
    _print(pemba.output, answer)
    if answer.decision != permissions_pb2.DECISION_ALLOWED:
        raise typer.Exit(ExitCode.NO)


def _require_two(resource: str, left_over: str) -> None:
    if left_over:
        raise typer.BadParameter(f"--all takes SUBJECT and RESOURCE and no PERMISSION, not also {resource!r}")


def _check_all(
    pemba: Connection, subject: str, resource: str, tenant: str, consistency: types_pb2.Consistency | None
) -> None:
    from pemba.cli import refs
    from pemba.v1 import permissions_pb2

    subject_ref = refs.subject_ref(subject, "SUBJECT")
    tenant_id = refs.tenant_id(pemba, tenant)
    request = permissions_pb2.CheckAllRequest(
        tenant_id=tenant_id,
        resource=refs.object_ref(pemba, tenant_id, resource, "RESOURCE"),
        subject=subject_ref,
        consistency=consistency,
    )
    answer = pemba.read(pemba.permissions.CheckAll, request)
    rows = [{"PERMISSION": p.permission, "DECISION": _line(p, answer.reason)} for p in answer.permissions]
    show(pemba.output, answer, rows)
    if all(p.decision != permissions_pb2.DECISION_ALLOWED for p in answer.permissions):
        raise typer.Exit(ExitCode.NO)


def consistency_of(at_least_as_fresh: str, fully_consistent: bool) -> types_pb2.Consistency | None:
    """What the two options ask for.  Raises BadParameter where both are given."""
    from pemba.v1 import types_pb2

    if at_least_as_fresh and fully_consistent:
        raise typer.BadParameter("--at-least-as-fresh and --fully-consistent exclude each other; give one of them")
    if fully_consistent:
        return types_pb2.Consistency(fully_consistent=True)
    return types_pb2.Consistency(at_least_as_fresh=at_least_as_fresh) if at_least_as_fresh else None


def _print(output: Output, answer: permissions_pb2.CheckResponse) -> None:
    if output is Output.JSON:
        print_json(as_dict(answer))
    elif output is Output.TOKEN:
        print(answer.token)
    else:
        print_rich(coloured(_line(answer, answer.reason)))


def _line(
    answer: permissions_pb2.CheckResponse | permissions_pb2.PermissionDecision, reason: errors_pb2.ErrorReason.ValueType
) -> str:
    from pemba.v1 import errors_pb2, permissions_pb2

    decision = permissions_pb2.Decision.Name(answer.decision).removeprefix("DECISION_")
    why = [errors_pb2.ErrorReason.Name(reason).removeprefix("ERROR_REASON_")] if reason else []
    missing = [f"needs {', '.join(answer.missing_context)}"] if answer.missing_context else []
    return decision + (f" ({'; '.join(why + missing)})" if why or missing else "")
