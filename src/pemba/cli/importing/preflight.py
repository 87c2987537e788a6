"""What is wrong with the lines of an import taken together, and with the tenant as it is; and what each comes to.

Of each check all that is found comes out, so that a person mends a file once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pemba.cli.importing.fields import EXTERNAL, in_seconds
from pemba.cli.importing.journal import BEFORE, COLUMNS, Row, row_of
from pemba.cli.importing.lines import Complaint, Kind
from pemba.model import MAX_GROUP_DEPTH

if TYPE_CHECKING:
    from pemba.cli.importing.journal import Journal

ROLES_OF_A_CALL = 500

_WORKSPACE_OF = "substr(r.name, 11)"  # after `workspace:`
_GROUP_OF = "substr(r.other, 7)"  # after `group:`
_IS_GROUP = "r.other LIKE 'group:%'"
# What lines name: (their kind, what it is that they name, in which field, how it is got, of which of them)
_REFERENCES = (
    (Kind.WORKSPACE, Kind.WORKSPACE, "path", "parent(r.name)", "true"),
    (Kind.MEMBER, Kind.WORKSPACE, "object", _WORKSPACE_OF, "r.name <> 'tenant'"),
    (Kind.SHARE, Kind.WORKSPACE, "workspace", "r.name", "true"),
    (Kind.SHARE, Kind.WORKSPACE, "with_workspace", "r.other", "true"),
    (Kind.GROUP_MEMBER, Kind.GROUP, "group", "r.name", "true"),
    (Kind.GROUP_MEMBER, Kind.GROUP, "subject", _GROUP_OF, _IS_GROUP),
    (Kind.MEMBER, Kind.GROUP, "subject", _GROUP_OF, _IS_GROUP),
)
_EMAIL = "lower(json_extract({}, '$.email'))"
_EXTERNAL_ID = "json_extract({}, '$.external_id')"
# Levels are counted along every way, so that a group comes once for each; no way is longer than one level too many.
_WALK = f"""
    WITH RECURSIVE walk (root, id, level) AS (
        SELECT above, below, 2 FROM nesting
        UNION
        SELECT root, below, level + 1 FROM walk JOIN nesting ON above = id WHERE level <= {MAX_GROUP_DEPTH}
    )
    SELECT root, max(id = root), max(level) FROM walk GROUP BY root
    HAVING max(id = root) OR max(level) > {MAX_GROUP_DEPTH} ORDER BY root
"""


def examine(journal: Journal, tenant: str) -> Iterator[Complaint]:
    """Everything that is wrong; `tenant` is the slug of the one that it is for.

    What was `BEFORE` has to be in the journal, and `plan` has to have been called.
    """
    yield from _twice(journal)
    yield from _other_tenants(journal, tenant)
    yield from _unknown(journal)
    yield from _nesting(journal)
    yield from _emails(journal)
    yield from _external_ids(journal)
    yield from _deactivated(journal)
    yield from _archived(journal)
    yield from _shares(journal)


def plan(journal: Journal) -> None:
    """Note of every line whether it makes, changes or leaves something, and in which call, in which order."""
    _resolve(journal)
    journal.run("UPDATE records SET action = 'make', id = '', etag = ''")
    journal.run(
        "UPDATE records SET id = p.id, etag = p.etag,"
        " action = iif(covers(p.has, json_remove(given, '$.first_admin')), 'leave', 'change')"
        " FROM present p WHERE p.at = ? AND p.kind = records.kind AND p.name = records.name AND p.other = records.other"
        " AND NOT (p.kind = 'user' AND p.etag = '0')",  # a role made the record, and nobody has created the user yet
        BEFORE,
    )
    journal.run("UPDATE records SET done = iif(action = 'leave', -1, 0)")
    # Parents first; of roles the highest first: who is to be the only owner is one before another is none any more.
    journal.run("UPDATE records SET place = length(name) - length(replace(name, '/', '')) WHERE kind = 'workspace'")
    journal.run(
        "UPDATE records SET place = CASE json_extract(given, '$.role') WHEN 'owner' THEN 0 WHEN 'admin' THEN 1"
        " WHEN 'member' THEN 2 ELSE 3 END WHERE kind = 'member'"
    )
    journal.run(
        "UPDATE records SET batch = s.batch FROM"
        f" (SELECT n, (row_number() OVER (ORDER BY place, n) - 1) / {ROLES_OF_A_CALL} AS batch FROM records"
        " WHERE kind = 'member' AND action <> 'leave') s WHERE s.n = records.n"
    )
    journal.run(
        "UPDATE records SET place = s.place FROM (SELECT n, dense_rank() OVER (ORDER BY name) AS place FROM records"
        " WHERE kind = 'group_member') s WHERE s.n = records.n"
    )
    journal.commit()


def _resolve(journal: Journal) -> None:
    """External ids to slugs, as far as a group has them."""
    named = journal.rows(
        "SELECT name FROM records WHERE kind = 'group_member' AND name LIKE 'external:%'"
        " UNION SELECT substr(other, 7) FROM records WHERE other LIKE 'group:external:%'"
    )
    for (name,) in list(named):
        id_ = name.removeprefix(EXTERNAL)
        slug = journal.one(
            "SELECT name FROM records WHERE kind = 'group' AND json_extract(given, '$.external_id') = ?", id_
        ) or journal.one(
            "SELECT name FROM present WHERE at = ? AND kind = 'group' AND json_extract(has, '$.external_id') = ?",
            *(BEFORE, id_),
        )
        if slug is not None:
            journal.run("UPDATE records SET name = ? WHERE kind = 'group_member' AND name = ?", slug, name)
            journal.run("UPDATE records SET other = 'group:' || ? WHERE other = 'group:' || ?", slug, name)


def found(journal: Journal, rest: str, *values: object, more: str = "") -> Iterator[tuple[Row, tuple[object, ...]]]:
    """Lines `r` of what follows SELECT, each with the columns of `more`."""
    size = len(COLUMNS.split(","))
    for cells in journal.rows(f"SELECT {COLUMNS}{more} {rest}", *values):
        yield row_of(cells[:size]), cells[size:]


def complaint(row: Row, field: str, message: str) -> Complaint:
    return Complaint(row.file, row.line, field, message)


def _twice(journal: Journal) -> Iterator[Complaint]:
    rest = """
        FROM (SELECT kind, name, other, min(n) AS n FROM records GROUP BY kind, name, other HAVING count(*) > 1) d
        JOIN records r ON r.kind = d.kind AND r.name = d.name AND r.other = d.other AND r.n > d.n
        JOIN records f ON f.n = d.n
    """
    for row, (file, line) in found(journal, rest, more=", f.file, f.line"):
        yield complaint(row, "", f"{row.text} stands in {file}:{line} already")


def _other_tenants(journal: Journal, tenant: str) -> Iterator[Complaint]:
    for row, _ in found(journal, "FROM records r WHERE r.kind = 'tenant' AND r.name <> ?", tenant):
        yield complaint(row, "slug", f"is not {tenant}, the tenant that this import is for")


def _unknown(journal: Journal) -> Iterator[Complaint]:
    for kind, target, field, expression, which in _REFERENCES:
        rest = f"""
            FROM records r WHERE r.kind = ? AND {which} AND ({expression} <> '' OR ? = 'group')
                AND NOT EXISTS (SELECT 1 FROM records t WHERE t.kind = ? AND t.name = {expression} AND t.other = '')
                AND NOT EXISTS (
                    SELECT 1 FROM present p WHERE p.at = ? AND p.kind = ? AND p.name = {expression} AND p.other = ''
                )
        """
        for row, (name,) in found(journal, rest, kind, target, target, BEFORE, target, more=f", {expression}"):
            yield complaint(row, field, f"there is no {target} {name}, neither in the files nor in the tenant")


def _nesting(journal: Journal) -> Iterator[Complaint]:
    """Groups that would come to be in themselves, or too deep in others."""
    journal.run("CREATE TEMP TABLE IF NOT EXISTS nesting (above TEXT, below TEXT, PRIMARY KEY (above, below))")
    journal.run("DELETE FROM nesting")
    nested = "SELECT name, substr(other, 7) FROM {} WHERE kind = 'group_member' AND other LIKE 'group:%'"
    journal.run(f"INSERT OR IGNORE INTO nesting {nested.format('records')}")
    journal.run(f"INSERT OR IGNORE INTO nesting {nested.format('present')} AND at = ?", BEFORE)
    for root, is_circle, _ in list(journal.rows(_WALK)):
        wrong = "would come to be in itself" if is_circle else f"would have more than {MAX_GROUP_DEPTH} levels with it"
        first = journal.records(
            "WHERE r.kind = 'group_member' AND r.name = ? AND r.other LIKE 'group:%' ORDER BY r.n", root, limit=1
        )
        yield from (complaint(row, "subject", f"group {root} {wrong}") for row in first)


def _emails(journal: Journal) -> Iterator[Complaint]:
    """Two of the files alike, and those of others; what there is of others has been read for that."""
    yield from _alike(journal, "user", "email", _EMAIL)


def _external_ids(journal: Journal) -> Iterator[Complaint]:
    yield from _alike(journal, "group", "external_id", _EXTERNAL_ID)


def _alike(journal: Journal, kind: str, field: str, value: str) -> Iterator[Complaint]:
    """Lines with the same as an earlier one, or as another record of the tenant, in a field that tells them apart."""
    own = value.format("r.given")
    twice = f"""
        FROM (
            SELECT {own} AS value, min(n) AS n FROM records r WHERE kind = '{kind}' AND {own} <> ''
            GROUP BY 1 HAVING count(*) > 1
        ) d CROSS JOIN records r JOIN records f ON f.n = d.n
        WHERE r.kind = '{kind}' AND {own} = d.value AND r.n > d.n AND r.name <> f.name
    """
    for row, (name,) in found(journal, twice, more=", f.name"):
        yield complaint(row, field, f"is that of {kind} {name} already")
    taken = f"""
        FROM present p CROSS JOIN records r
        WHERE p.at = ? AND p.kind = '{kind}' AND {value.format("p.has")} <> '' AND r.kind = '{kind}'
            AND {own} = {value.format("p.has")} AND r.name <> p.name
    """
    for row, (name,) in found(journal, taken, BEFORE, more=", p.name"):
        yield complaint(row, field, f"is that of {kind} {name} already")


def _deactivated(journal: Journal) -> Iterator[Complaint]:
    for field, which in (("id", "r.kind = 'user' AND r.name = p.name"), ("subject", "r.other = 'user:' || p.name")):
        rest = f"""
            FROM present p CROSS JOIN records r
            WHERE p.at = ? AND p.kind = 'user' AND json_extract(p.has, '$.deactivated') AND {which}
                AND r.action <> 'leave'
        """
        for row, (name,) in found(journal, rest, BEFORE, more=", p.name"):
            yield complaint(row, field, f"user:{name} is deactivated, for good")


def _archived(journal: Journal) -> Iterator[Complaint]:
    own = (Kind.WORKSPACE, Kind.WORKSPACE, "path", "r.name", "true")
    for kind, target, field, expression, which in (own, *_REFERENCES):
        if target is Kind.WORKSPACE:
            rest = f"""
                FROM records r CROSS JOIN present p
                WHERE r.kind = ? AND r.action <> 'leave' AND {which} AND p.at = ? AND p.kind = 'workspace'
                    AND p.name = {expression} AND p.other = '' AND json_extract(p.has, '$.archived')
            """
            for row, (name,) in found(journal, rest, kind, BEFORE, more=", p.name"):
                yield complaint(row, field, f"workspace {name} is archived; unarchive it first")


def _shares(journal: Journal) -> Iterator[Complaint]:
    for row, _ in found(journal, "FROM records r WHERE r.kind = 'share' AND r.action = 'change'"):
        yield complaint(row, "", f"{row.text} is there with another role or expiry; revoke that first")
    past = "FROM records r WHERE r.kind = 'share' AND r.action = 'make' AND json_extract(r.given, '$.expire_time') <= ?"
    for row, _ in found(journal, past, in_seconds(datetime.now(UTC))):
        yield complaint(row, "expire_time", "takes a time in the future")
