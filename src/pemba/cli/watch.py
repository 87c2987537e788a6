"""`pemba watch`: what changes in a tenant, as it comes into force."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pemba.cli.options import TenantOption
from pemba.cli.output import Output, as_dict, moment

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.v1 import watch_pb2


def watch(
    pemba: Connection,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", help="Only this one's, by path or id; / is the root.")
    ] = "",
    user: Annotated[str, typer.Option("--user", metavar="user:ID", help="Only this user's roles and groups.")] = "",
    tenant: TenantOption = "",
    cursor: Annotated[
        str, typer.Option("--cursor", help="Go on after what had this cursor (see --output json); else from now.")
    ] = "",
) -> None:
    """Follow changes as they come into force, until Ctrl-C.  With --output json: a line for each message."""
    from pemba.cli import refs
    from pemba.v1 import watch_pb2

    if workspace and user:
        raise typer.BadParameter("--workspace and --user: give one of them")
    request = watch_pb2.WatchChangesRequest(tenant_id=refs.tenant_id(pemba, tenant), cursor=cursor)
    if workspace:
        request.workspace_id = refs.workspace_id(pemba, request.tenant_id, workspace)
    elif user:
        request.user_id = refs.user_id(user, "--user")
    for message in pemba.follow(pemba.watch.WatchChanges, request):
        if pemba.output is Output.JSON:
            print(json.dumps(as_dict(message), ensure_ascii=False), flush=True)
        elif message.HasField("change"):
            print("\n".join(_lines(message.change)), flush=True)


def _lines(change: watch_pb2.Change) -> list[str]:
    from pemba.v1 import operations_pb2

    by = f" for user:{change.acting_user}" if change.acting_user else ""
    part = f" ({change.part} of {change.parts})" if change.parts > 1 else ""
    lines = [f"{moment(change.create_time)} {change.method}{by}{part}"]
    lines += [f"    {_what(record)}" for record in change.records]
    for each in change.operations:
        verb = operations_pb2.TupleOperation.Name(each.operation).removeprefix("TUPLE_OPERATION_").lower()
        lines.append(f"    {verb} {each.tuple}")
    return lines


def _what(record: watch_pb2.RecordChange) -> str:
    """One record in a line: what became of it, and which fields are others now."""
    before, after = _fields(record, "before"), _fields(record, "after")
    if not before or not after:
        named = after or before
        return f"{'new' if after else 'gone'} {record.type} " + _text({k: named[k] for k in _NAMES if k in named})
    changed = {name: after[name] for name in after if after[name] != before.get(name) and name not in _NOISE}
    return f"changed {record.type} " + _text({k: after[k] for k in _NAMES if k in after} | changed)


_NAMES = ("id", "workspace_id", "with_workspace_id", "group_id", "subject", "slug", "name", "role")
_NOISE = ("etag", "update_time")


def _fields(record: watch_pb2.RecordChange, which: Literal["before", "after"]) -> dict[str, object]:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(getattr(record, which)) if record.HasField(which) else {}


def _text(fields: dict[str, object]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in fields.items() if value not in (None, ""))


def _value(value: object) -> str:
    if isinstance(value, dict) and {"type", "id"} <= value.keys():
        return f"{value['type']}:{value['id']}"
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False)
