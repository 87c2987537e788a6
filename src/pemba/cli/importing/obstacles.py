"""What of an import can be taken back, and what came since and builds on it.

All of it is told from the journal, once it has what is `NOW` in the tenant.  The order of the joins is forced: the
other one would compare everything with everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pemba.cli.importing.journal import BEFORE, NOW, in_words
from pemba.cli.importing.lines import Complaint
from pemba.cli.importing.preflight import complaint, found

if TYPE_CHECKING:
    from pemba.cli.importing.journal import Journal

MAX_GONE_WITH = 10_000
"""How many roles or members may go with their workspace or group, in one change."""

_SAME = "p.kind = r.kind AND p.name = r.name AND p.other = r.other"
# Of lines (r) that were carried out and their records as they are now (p): (which lines, which record, what differs)
_CHANGED = (
    ("r.kind IN ('workspace', 'tenant')", "p.kind = r.kind AND p.id = r.id", "p.etag <> r.etag"),
    ("r.kind IN ('member', 'share')", _SAME, "p.etag <> r.etag"),
    ("r.kind = 'user' AND r.action = 'change'", _SAME, "p.etag <> r.etag"),
    ("r.kind IN ('group', 'group_member')", _SAME, "NOT covers(p.has, r.given)"),
)
# Of records (p) that are not of this import and the lines (r) that made what they are about: (which records, whose
# lines, by which names, what is said of it)
_BUILT_ON = (
    ("workspace", "p.name <> ''", "workspace", "parent(p.name)", "''", "is below it"),
    ("member", "p.name <> 'tenant'", "workspace", "substr(p.name, 11)", "''", "is on it"),
    ("share", "true", "workspace", "p.name", "''", "is of it"),
    ("share", "true", "workspace", "p.other", "''", "is with it"),
    ("group_member", "true", "group", "p.name", "''", "is of it"),
    ("group_member", "p.other LIKE 'group:%'", "group", "substr(p.other, 7)", "''", "is its place"),
    ("member", "p.other LIKE 'group:%'", "group", "substr(p.other, 7)", "''", "is its role"),
    ("member", "p.name <> 'tenant' AND NOT {was_there}", "member", "'tenant'", "p.other", "would go with it"),
    ("group_member", "p.other LIKE 'user:%' AND NOT {was_there}", "member", "'tenant'", "p.other", "would go with it"),
)
_OURS = """
    EXISTS (SELECT 1 FROM records o WHERE o.done > 0 AND o.kind = p.kind AND o.name = p.name AND o.other = p.other)
"""
_WAS_THERE = f"""
    EXISTS (
        SELECT 1 FROM present b
        WHERE b.at = '{BEFORE}' AND b.kind = p.kind AND b.name = p.name AND b.other = p.other
    )
"""

_MADE = "done = 1 AND action = 'make'"
# What goes with the workspace or group that was made with it, unless that would be too large a change.
_WITH = f"""
    UPDATE records SET undo = 'with'
    WHERE {_MADE} AND kind = ? AND name <> 'tenant' AND (
        json_extract(given, '$.role') IS 'owner'
        OR name NOT IN (SELECT name FROM records WHERE kind = ? GROUP BY name HAVING count(*) > {MAX_GONE_WITH})
    ) AND EXISTS (
        SELECT 1 FROM records o
        WHERE o.done > 0 AND o.action = 'make' AND o.kind = ? AND o.name = {{name}} AND o.other = ''
    )
"""
_ANOTHER_HOLDER = f"""
    EXISTS (
        SELECT 1 FROM present p WHERE p.at = '{NOW}' AND p.kind = 'member' AND p.name = records.name
            AND p.other LIKE 'user:%' AND json_extract(p.has, '$.role') = json_extract(records.given, '$.role')
            AND NOT EXISTS (
                SELECT 1 FROM records o WHERE o.done = 1 AND o.action = 'make' AND o.kind = 'member'
                    AND o.name = p.name AND o.other = p.other
            )
    )
"""
_HAD_ROLES = f"""
    EXISTS (
        SELECT 1 FROM present p WHERE p.at = '{NOW}' AND p.other = records.other
            AND p.kind IN ('member', 'group_member') AND p.name <> 'tenant' AND {_WAS_THERE}
    )
"""
_STAYS = (
    ("kind = 'user'", "users are global and never deleted"),
    ("kind = 'tenant'", "the tenant, with its root and its first admin"),
    (
        f"""
            kind = 'member' AND undo = 'remove' AND other LIKE 'user:%' AND NOT {_ANOTHER_HOLDER}
            AND json_extract(given, '$.role') = iif(name = 'tenant', 'admin', 'owner')
        """,
        "nobody else has the role, and its last holder cannot be removed",
    ),
    (
        f"kind = 'member' AND undo = 'remove' AND name = 'tenant' AND other LIKE 'user:%' AND {_HAD_ROLES}",
        "without it they would lose roles that they had before",
    ),
)


def obstacles(journal: Journal) -> Iterator[Complaint]:
    """What later changes build on this import, and so stand in the way of taking it back."""
    for which, record, differs in _CHANGED:
        rest = f"""
            FROM records r CROSS JOIN present p
            WHERE r.done = 1 AND {which} AND p.at = ? AND {record} AND {differs} ORDER BY r.n
        """
        for row, _ in found(journal, rest, NOW):
            yield complaint(row, "", f"{row.text} was changed since")
    for kind, which, made, name, other, wrong in _BUILT_ON:
        rest = f"""
            FROM present p CROSS JOIN records r
            WHERE p.at = ? AND p.kind = ? AND {which.format(was_there=_WAS_THERE)} AND NOT {_OURS}
                AND r.kind = ? AND r.name = {name} AND r.other = {other} AND r.done = 1 AND r.action = 'make'
            ORDER BY r.n
        """
        for row, (path, subject) in found(journal, rest, NOW, kind, made, more=", p.name, p.other"):
            there = in_words(kind, str(path), str(subject))
            yield complaint(row, "", f"{row.text}: {there} {wrong}, and not of this import")


def plan_undo(journal: Journal) -> None:
    """Note of every line that was carried out how it is taken back: `remove`, `set back`, `with` what it is on.

    Else a text that begins with `stays: ` and says why.
    """
    journal.run("UPDATE records SET undo = iif(action = 'make', 'remove', 'set back') WHERE done = 1")
    journal.run(_WITH.format(name="substr(records.name, 11)"), "member", "member", "workspace")
    journal.run(_WITH.format(name="records.name"), "group_member", "group_member", "group")
    for which, why in _STAYS:
        journal.run(f"UPDATE records SET undo = 'stays: {why}' WHERE {_MADE} AND {which}")
    journal.commit()
