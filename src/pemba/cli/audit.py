"""`pemba audit`: who did what, who tried to, and who read."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.options import LimitOption, TenantOption, reads, with_call_options
from pemba.cli.output import Row, as_dict, moment, show

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import audit_pb2

app = typer.Typer(name="audit", help="See who did what, who was refused, and who read.", no_args_is_help=True)

_COLUMNS = ("TIME", "WHO", "FOR", "METHOD", "OBJECT", "OUTCOME")
_CSV_COLUMNS = (
    *("id", "tenant_id", "create_time", "principal", "acting_user", "peer", "request_id", "method", "object", "about"),
    *("outcome", "reason", "seq", "part", "parts", "before", "after", "operations"),
)


class Format(StrEnum):
    """How an export is written."""

    JSONL = "jsonl"
    CSV = "csv"


class OutcomeName(StrEnum):
    """What came of it."""

    CHANGED = "changed"
    REFUSED = "refused"
    READ = "read"


InstallationOption = Annotated[
    bool, typer.Option("--installation", help="Not a tenant's: users, and what belongs to no tenant.")
]
ObjectOption = Annotated[
    str, typer.Option("--object", help="About this: workspace:PATH, tenant:SLUG, or TYPE:ID of anything.")
]
SubjectOption = Annotated[str, typer.Option("--subject", help="About this subject: user:ID, group:SLUG.")]
ActorOption = Annotated[
    str, typer.Option("--actor", metavar="WHO", help="By this one: user:ID, or a principal as it is listed.")
]
MethodOption = Annotated[str, typer.Option("--method", metavar="NAME", help="As it is called: SetRole.")]
OutcomeOption = Annotated[OutcomeName | None, typer.Option("--outcome", help="What came of it.")]
CallOption = Annotated[str, typer.Option("--of-request", metavar="ID", help="Of the call with this request id.")]
SinceOption = Annotated[str, typer.Option("--since", metavar="TIME", help="From then on: 2026-11-21, or with a time.")]
UntilOption = Annotated[str, typer.Option("--until", metavar="TIME", help="Before then.")]


@reads(app, "list")
def list_(
    pemba: Connection,
    tenant: TenantOption = "",
    installation: InstallationOption = False,
    object_: ObjectOption = "",
    subject: SubjectOption = "",
    actor: ActorOption = "",
    method: MethodOption = "",
    outcome: OutcomeOption = None,
    of_request: CallOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Else the newest.")] = False,
    limit: LimitOption = 100,
) -> None:
    """List events, the newest first."""
    from pemba.v1 import audit_pb2

    times = _time("--since", since), _time("--until", until)
    tenant_id = _tenant_id(pemba, tenant, installation)
    request = audit_pb2.ListAuditEventsRequest(
        tenant_id=tenant_id,
        filter=_filter(pemba, tenant_id, object_, subject, actor, method, of_request, outcome, *times),
        order_by="id" if oldest_first else "id desc",
    )
    answer = pemba.list(pemba.audit.ListAuditEvents, request, "audit_events", limit)
    show(pemba.output, answer, [_row(event) for event in answer.audit_events], _COLUMNS)


def export(
    pemba: Connection,
    tenant: TenantOption = "",
    installation: InstallationOption = False,
    object_: ObjectOption = "",
    subject: SubjectOption = "",
    actor: ActorOption = "",
    method: MethodOption = "",
    outcome: OutcomeOption = None,
    of_request: CallOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    format_: Annotated[Format, typer.Option("--format", help="JSON Lines, or a table for a spreadsheet.")] = (
        Format.JSONL
    ),
    cursor: Annotated[str, typer.Option("--cursor", help="Only what came after the export that ended with it.")] = "",
) -> None:
    """Write all events to stdout, the oldest first; the cursor for the next export goes to stderr at the end."""
    from pemba.v1 import audit_pb2

    times = _time("--since", since), _time("--until", until)
    tenant_id = _tenant_id(pemba, tenant, installation)
    request = audit_pb2.ExportAuditEventsRequest(
        tenant_id=tenant_id,
        filter=_filter(pemba, tenant_id, object_, subject, actor, method, of_request, outcome, *times),
        cursor=cursor,
    )
    write = _write_csv if format_ is Format.CSV else _write_jsonl
    last = write(pemba.follow(pemba.audit.ExportAuditEvents, request))
    print(f"cursor {last}", file=sys.stderr)


app.command("export")(with_call_options(export, ("endpoint", "on_behalf_of")))


def _write_jsonl(messages: Iterable[audit_pb2.ExportAuditEventsResponse]) -> str:
    """The cursor of the last one."""
    cursor = ""
    for message in messages:
        cursor = message.cursor
        if message.HasField("audit_event"):
            print(json.dumps(as_dict(message.audit_event), ensure_ascii=False))
    return cursor


def _write_csv(messages: Iterable[audit_pb2.ExportAuditEventsResponse]) -> str:
    cursor = ""
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(_CSV_COLUMNS)
    for message in messages:
        cursor = message.cursor
        if message.HasField("audit_event"):
            event = as_dict(message.audit_event)
            table.writerow([_cell(event.get(column, "")) for column in _CSV_COLUMNS])
    return cursor


def _cell(value: object) -> str:
    """What a spreadsheet would take for a formula gets an apostrophe in front: names are anybody's."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _filter(
    pemba: Connection,
    tenant_id: str,
    object_: str,
    subject: str,
    actor: str,
    method: str,
    of_request: str,
    outcome: OutcomeName | None,
    since: datetime | None,
    until: datetime | None,
) -> audit_pb2.AuditFilter:
    from pemba.cli import refs
    from pemba.v1 import audit_pb2

    wanted = audit_pb2.AuditFilter(actor=actor, method=method, request_id=of_request)
    if object_:
        wanted.object.CopyFrom(refs.object_ref(pemba, tenant_id, object_, "--object"))
    if subject:
        wanted.subject.CopyFrom(refs.holder_ref(pemba, tenant_id, subject, "--subject"))
    if outcome is not None:
        wanted.outcome = audit_pb2.AuditOutcome.Value(f"AUDIT_OUTCOME_{outcome.name}")
    if since is not None:
        wanted.since.FromDatetime(since)
    if until is not None:
        wanted.until.FromDatetime(until)
    return wanted


def _tenant_id(pemba: Connection, tenant: str, installation: bool) -> str:
    """Empty for the installation."""
    from pemba.cli import refs

    if installation and tenant:
        raise typer.BadParameter("--installation and --tenant: give one of them")
    return "" if installation else refs.tenant_id(pemba, tenant)


def _time(option: str, text: str) -> datetime | None:
    """UTC where it names no zone.  Raises BadParameter."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option} takes a time (2026-12-31, 2026-12-31T18:00Z), not {text!r}") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _row(event: audit_pb2.AuditEvent) -> Row:
    from pemba.v1 import audit_pb2

    outcome = audit_pb2.AuditOutcome.Name(event.outcome).removeprefix("AUDIT_OUTCOME_").lower()
    part = f" {event.part}/{event.parts}" if event.parts > 1 else ""
    cells = (
        moment(event.create_time),
        event.principal,
        f"user:{event.acting_user}" if event.acting_user else "",
        event.method,
        event.object,
        f"{outcome}{part}" + (f" {event.reason}" if event.reason else ""),
    )
    return dict(zip(_COLUMNS, cells, strict=True))
