"""The stages of an import, one after the other, and what is told about them."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pemba.cli.failure import CallFailed, Problem
from pemba.cli.importing import obstacles, preflight, tenant
from pemba.cli.importing.applying import Applying
from pemba.cli.importing.journal import BEFORE, NOW, Journal
from pemba.cli.importing.lines import Complaint, Kind, Record, read
from pemba.cli.importing.undoing import Undoing, settle
from pemba.cli.importing.verifying import verify
from pemba.model import RESERVED_SLUGS, SLUG_RULE, is_slug, is_typeid
from pemba.v1 import tenants_pb2

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.progress import Progress

APPLYING, APPLIED, UNDOING, UNDONE = "applying", "applied", "undoing", "undone"
_NO_LINE = "--create"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line says; `tenant` is a slug or an id, `first_admin` a user's id, each may be empty."""

    files: Sequence[Path]
    tenant: str
    create: bool
    first_admin: str
    journal: Path
    max_errors: int


@dataclass(slots=True)
class Report:
    """What came of it: the numbers by kind, and what is wrong, as far as it is kept."""

    tenant: str = ""
    stage: str = ""
    """`dry run`, `applied`, `nothing to do`, `undo: dry run`, `undone`."""
    actions: dict[str, dict[str, int]] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    complaint_count: int = 0
    token: str = ""

    def complain(self, found: Iterable[Complaint], most: int) -> None:
        """All of them count, `most` are kept."""
        for complaint in found:
            self.complaint_count += 1
            if len(self.complaints) < most:
                self.complaints.append(complaint)


def dry_run(pemba: Connection, order: Order, progress: Progress) -> Report:
    """What an import would do, and all that is wrong with it.  Raises CallFailed."""
    with tempfile.TemporaryDirectory(prefix="pemba-import-") as folder, _open(Path(folder) / "journal") as journal:
        report = _prepare(pemba, order, journal, progress)
    report.stage = "dry run"
    return report


def apply(pemba: Connection, order: Order, progress: Progress) -> Report:
    """Import what there is nothing wrong with.  Raises CallFailed, also where an earlier import is not at its end."""
    earlier = _end_of_earlier(order.journal)
    fresh = order.journal.with_name(f"{order.journal.name}.new")
    _discard(fresh)
    with _open(fresh) as journal:
        report = _prepare(pemba, order, journal, progress)
        to_do = journal.one("SELECT count(*) FROM records WHERE done = 0")
        if to_do and not report.complaint_count:
            digest = digest_of(order.files)
            journal.note(digest=digest, run=f"{digest[:16]}.{secrets.token_hex(6)}", state=APPLYING)
            journal.commit()
    if report.complaint_count or not to_do:
        _discard(fresh)
        report.stage = "dry run" if report.complaint_count else "nothing to do"
        return report
    if earlier:
        order.journal.replace(order.journal.with_name(f"{order.journal.name}.{earlier}"))
    fresh.replace(order.journal)
    return resume(pemba, order, progress)


def resume(pemba: Connection, order: Order, progress: Progress) -> Report:
    """Go on with an import that was begun.  Raises CallFailed, also where none was, or with other files."""
    with _opened(order, (APPLYING,)) as journal:
        Applying(pemba, journal).run(progress)
        report = Report(tenant=journal.get("slug"), stage=APPLIED, actions=journal.actions(), before=_before(journal))
        report.complain(verify(pemba, journal, progress), order.max_errors)
        report.after, report.token = journal.counts(NOW), journal.get("token")
        journal.note(state=APPLIED)
        journal.commit()
    return report


def undo(pemba: Connection, order: Order, progress: Progress, *, carry_out: bool) -> Report:
    """Take the last import of these files back, whole or not at all.  Raises CallFailed."""
    with _opened(order, (APPLYING, APPLIED, UNDOING)) as journal:
        if carry_out and journal.get("state") == APPLYING:
            settle(pemba, journal)
        progress.step("reading the tenant")
        report = Report(tenant=journal.get("slug"), stage="undo: dry run")
        if not journal.get("tenant_id"):
            return report
        tenant.read(pemba, journal, NOW, progress)
        report.before = journal.counts(NOW)
        tenant.read_elsewhere(pemba, journal, progress)
        report.complain(obstacles.obstacles(journal), order.max_errors)
        obstacles.plan_undo(journal)
        report.actions = _undo_actions(journal)
        if report.complaint_count or not carry_out:
            return report
        journal.note(state=UNDOING)
        journal.commit()
        Undoing(pemba, journal).run(progress)
        tenant.read(pemba, journal, NOW, progress)
        journal.note(state=UNDONE)
        journal.commit()
        report.stage, report.after = UNDONE, journal.counts(NOW)
    return report


def digest_of(files: Sequence[Path]) -> str:
    """Of what stands in the files, in their order."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            whole.update(hashlib.file_digest(content, "sha256").digest())
    return whole.hexdigest()


def _prepare(pemba: Connection, order: Order, journal: Journal, progress: Progress) -> Report:
    """Read the files and the tenant, compare, and note what is to be done."""
    report = Report()
    progress.step("reading the files")
    report.complain(_read_files(order.files, journal, progress), order.max_errors)
    report.tenant = _find_tenant(pemba, order, journal)
    journal.note(slug=report.tenant)
    if order.create:
        _expect_tenant(order, journal, report.tenant)
        tenant.read_users(pemba, journal, BEFORE)
    else:
        progress.step(f"reading the tenant {report.tenant}")
        tenant.read(pemba, journal, BEFORE, progress)
    progress.step("comparing")
    preflight.plan(journal)
    report.complain(preflight.examine(journal, report.tenant), order.max_errors)
    report.actions, report.before = journal.actions(), _before(journal)
    return report


def _read_files(files: Sequence[Path], journal: Journal, progress: Progress) -> Iterable[Complaint]:
    for file in files:
        with file.open("rb") as content:
            for number, found in enumerate(read(content, file.name)):
                if isinstance(found, Record):
                    journal.add(found)
                else:
                    yield found
                if number % 10_000 == 0:
                    journal.commit()
                    progress.progress(f"reading {file.name}: line {found.line}")
    journal.commit()


def _find_tenant(pemba: Connection, order: Order, journal: Journal) -> str:
    """The slug of the tenant that this is for; its id is noted, where it is there.  Raises CallFailed, BadParameter."""
    in_file = journal.one("SELECT name FROM records WHERE kind = 'tenant' ORDER BY n")
    named = order.tenant or in_file or pemba.default_tenant
    if not named:
        raise typer.BadParameter("--tenant is missing: it takes a tenant's slug or id, unless a line has the tenant")
    if order.create and (not is_slug(named) or named in RESERVED_SLUGS):
        raise typer.BadParameter(f"--tenant {SLUG_RULE}, and no reserved word; not {named!r}")
    by_id = is_typeid("ten", named)
    request = tenants_pb2.GetTenantRequest(tenant_id=named) if by_id else tenants_pb2.GetTenantRequest(slug=named)
    try:
        found = pemba.read(pemba.tenants.GetTenant, request).tenant
    except CallFailed as error:
        if error.problem.code != "NOT_FOUND" or order.create:
            if error.problem.code != "NOT_FOUND":
                raise
            return str(named)
        raise CallFailed(Problem("NOT_FOUND", f"there is no tenant {named}; --create makes it")) from error
    if order.create:
        raise CallFailed(
            Problem("ALREADY_EXISTS", f"there is a tenant {named}; without --create the files are imported into it")
        )
    if found.status == tenants_pb2.TENANT_STATUS_SUSPENDED:
        raise CallFailed(Problem("FAILED_PRECONDITION", f"the tenant {named} is suspended; activate it first"))
    journal.note(tenant_id=found.id)
    return found.slug


def _expect_tenant(order: Order, journal: Journal, slug: str) -> None:
    """Note what a tenant that is to be made has from the beginning: its root, and its first admin."""
    if not journal.one("SELECT 1 FROM records WHERE kind = 'tenant'"):
        journal.add(Record(_NO_LINE, 0, Kind.TENANT, slug, "", {}))
    if order.first_admin:
        journal.run(
            "UPDATE records SET given = json_set(given, '$.first_admin', ?) WHERE kind = 'tenant'", order.first_admin
        )
    admin = journal.one("SELECT json_extract(given, '$.first_admin') FROM records WHERE kind = 'tenant'")
    if not admin:
        raise typer.BadParameter("--first-admin is missing: it takes user:ID, unless a tenant's line has first_admin")
    journal.note(create="yes")
    journal.saw(BEFORE, Kind.WORKSPACE, "", "", {})
    journal.saw(BEFORE, Kind.MEMBER, "tenant", f"user:{admin}", {"role": "admin"})


def _before(journal: Journal) -> dict[str, int]:
    counts = journal.counts(BEFORE)
    return {kind: 0 if kind != Kind.USER else counts[kind] for kind in counts} if journal.get("create") else counts


def _undo_actions(journal: Journal) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    sql = "SELECT kind, iif(undo = 'with', 'remove', undo), count(*) FROM records WHERE done = 1 GROUP BY 1, 2"
    for kind, how, count in journal.rows(sql):
        counts.setdefault(kind, {})[how] = count
    return {kind: counts[kind] for kind in Kind if kind in counts}


def _end_of_earlier(path: Path) -> str:
    """The run of the import whose journal is there, empty for none.  Raises CallFailed where it is not at its end."""
    if not path.exists():
        return ""
    with _open(path) as journal:
        state, run = journal.get("state"), journal.get("run")
    if state in (APPLYING, UNDOING):
        to_do = "--resume goes on with it, --undo --apply takes it back" if state == APPLYING else "--undo --apply does"
        raise CallFailed(Problem("FAILED_PRECONDITION", f"{path}: an import did not come to its end; {to_do}"))
    return run


@contextmanager
def _opened(order: Order, states: Sequence[str]) -> Generator[Journal]:
    """The journal of these files' last import, in one of these states.  Raises CallFailed."""
    if not order.journal.exists():
        raise CallFailed(Problem("NOT_FOUND", f"{order.journal} is not there: it is the journal of the import"))
    with _open(order.journal) as journal:
        if journal.get("digest") != digest_of(order.files):
            raise CallFailed(Problem("FAILED_PRECONDITION", f"{order.journal} is of an import of other files"))
        if journal.get("state") not in states:
            problem = f"{order.journal}: the import is {journal.get('state')}; there is nothing left to do"
            raise CallFailed(Problem("FAILED_PRECONDITION", problem))
        yield journal


@contextmanager
def _open(path: Path) -> Generator[Journal]:
    with ExitStack() as stack:
        journal = Journal(path)
        stack.callback(journal.close)
        yield journal


def _discard(path: Path) -> None:
    for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-journal")):
        each.unlink(missing_ok=True)
