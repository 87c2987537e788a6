"""`pemba reconcile`: where SpiceDB differs from the records, and the repair of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from pemba.cli.failure import ExitCode
from pemba.cli.output import Output, as_dict

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.progress import Progress
    from pemba.v1 import operations_pb2, types_pb2

SHOWN = 100
"""Findings of each kind that are shown to people; JSON has all of them."""

_STEPS = {
    "store": "reading what SpiceDB holds",
    "records": "comparing it with the records",
    "repair": "repairing",
    "delivery": "waiting until it is delivered",
}


def reconcile(
    pemba: Connection,
    apply: Annotated[bool, typer.Option("--apply", help="Repair what is found; else nothing is changed.")] = False,
    max_deletions: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --apply: if more tuples than this are too much, delete none. Else 1000, or a tenth of what"
            " SpiceDB holds if that is less.",
            show_default=False,
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="With --apply: do not wait until the repair is delivered.")
    ] = False,
    tenant: Annotated[
        str, typer.Option("--tenant", "-t", help="Compare this tenant alone, by slug or id; else everything.")
    ] = "",
) -> None:
    """Find where SpiceDB differs from the records: 0 nowhere (or all repaired), 1 somewhere.

    With --output json: a line for each finding as it comes, and one for the summary.
    """
    from pemba.cli import refs
    from pemba.cli.progress import Progress
    from pemba.v1 import operations_pb2

    if not apply and (no_wait or max_deletions is not None):
        raise typer.BadParameter("--max-deletions and --no-wait go with --apply: without it nothing is changed")
    request = operations_pb2.ReconcileRequest(
        tenant_id=refs.tenant_id(pemba, tenant) if tenant else "",
        apply=apply,
        max_deletions=max_deletions,
        wait=apply and not no_wait,
    )
    progress = Progress("pemba reconcile")
    try:
        report = _Report(pemba.output, progress)
        for message in pemba.follow(pemba.operations.Reconcile, request):
            report.take(message)
    finally:
        progress.end()
    if not report.end(apply):
        raise typer.Exit(ExitCode.NO)


class _Report:
    """What is kept of a stream for the end of it: a bounded part."""

    def __init__(self, output: Output, progress: Progress) -> None:
        self._output = output
        self._progress = progress
        self._shown: dict[int, list[str]] = {}
        self._summary: operations_pb2.ReconcileResponse | None = None
        self._step = ""

    def take(self, message: operations_pb2.ReconcileResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "progress":
            self._show_progress(message.progress)
            return
        if self._output is Output.JSON:
            part = as_dict(message.finding if kind == "finding" else message.summary)
            print(json.dumps({kind: part} | ({"token": message.token} if kind == "summary" else {})))
        if kind == "summary":
            self._summary = message
        elif len(shown := self._shown.setdefault(message.finding.kind, [])) < SHOWN:
            shown.append(in_words(message.finding))

    def end(self, applied: bool) -> bool:
        """Print the report; whether nothing differs, or all that did is repaired."""
        assert self._summary is not None  # a stream that ends well ends with it
        summary = self._summary.summary
        if self._output is Output.TABLE:
            self._progress.end()
            print("\n".join(_lines(summary, self._shown, applied)))
        elif self._output is Output.TOKEN:
            print(self._summary.token)
        left = summary.foreign or summary.deletions_withheld
        return not (left if applied else left or summary.missing or summary.too_much)

    def _show_progress(self, progress: operations_pb2.ReconcileProgress) -> None:
        of = f" of {progress.total}" if progress.total else ""
        text = f"{_STEPS.get(progress.step, progress.step)}: {progress.done}{of}"
        if progress.step != self._step:
            self._step = progress.step
            self._progress.step(text)
        else:
            self._progress.progress(text)


def in_words(finding: operations_pb2.ReconcileFinding) -> str:
    """`user:alice loses admin on workspace:acme/eng/backend`; what no record knows goes by its id."""
    from pemba.v1 import operations_pb2

    if finding.kind == operations_pb2.DRIFT_KIND_FOREIGN:
        return finding.tuple
    gains = finding.kind == operations_pb2.DRIFT_KIND_MISSING
    on = _named(finding.object, finding.object_name, finding.tenant_slug or finding.tenant_id)
    subject = _named(finding.subject, finding.subject_name, finding.tenant_slug or finding.tenant_id)
    if finding.relation == "parent":
        return f"{on} {'comes below' if gains else 'is no longer below'} {subject}"
    if finding.relation == "tenant":
        return f"the admins of {subject} {'come to' if gains else 'no longer'} own {on}"
    relation = f"#{finding.subject.relation}" if finding.subject.relation else ""
    return f"{subject}{relation} {'gains' if gains else 'loses'} {finding.relation} on {on}"


def _named(ref: types_pb2.ObjectRef | types_pb2.SubjectRef, name: str, tenant: str) -> str:
    if name or ref.type in ("user", "tenant"):
        return f"{ref.type}:{name or ref.id}"
    return f"{ref.type}:{ref.id} of {tenant}"


def _lines(summary: operations_pb2.ReconcileSummary, shown: dict[int, list[str]], applied: bool) -> Iterable[str]:
    from pemba.v1 import operations_pb2

    for kind, count, heading in (
        (operations_pb2.DRIFT_KIND_MISSING, summary.missing, "missing in SpiceDB"),
        (operations_pb2.DRIFT_KIND_TOO_MUCH, summary.too_much, "too much in SpiceDB"),
        (operations_pb2.DRIFT_KIND_FOREIGN, summary.foreign, "of no tenant's object, and left as they are"),
    ):
        if count:
            yield f"{count} {heading}:"
            yield from (f"  {text}" for text in shown.get(kind, ()))
            if count > SHOWN:
                yield f"  ... and {count - SHOWN} more; --output json has all of them"
            yield ""
    yield f"SpiceDB holds {summary.stored} tuples, the records stand for {summary.projected}."
    if summary.undelivered:
        yield f"{summary.undelivered} differ because their change is not delivered yet: no drift."
    yield from _verdict(summary, applied)


def _verdict(summary: operations_pb2.ReconcileSummary, applied: bool) -> Iterable[str]:
    differ = summary.missing + summary.too_much
    if not differ and not summary.foreign:
        yield "No drift."
    elif differ and not applied:
        yield f"{differ} tuples differ. `pemba reconcile --apply` repairs them."
    elif differ:
        yield f"{summary.repaired} of {differ} tuples are repaired."
    if summary.deletions_withheld:
        yield (
            f"Nothing was deleted: {summary.too_much} tuples are too much, and {summary.max_deletions} may be deleted."
            f" If they are right to go (is this the right database?), `--max-deletions {summary.too_much}` allows it."
        )
    if summary.foreign:
        yield "What is of no tenant's object grants nothing to anybody; `zed relationship delete` takes it away."
