"""What is wrong with the lines of an import together, and what each comes to; and what stands in the way of an undo."""

import io
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pemba.cli.failure import CallFailed
from pemba.cli.importing import obstacles, preflight
from pemba.cli.importing.journal import BEFORE, NOW, Journal
from pemba.cli.importing.lines import Kind, Record, read


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal")
    opened.saw(BEFORE, Kind.WORKSPACE, "", "", {"name": "Acme"}, "ws_root", "1")
    yield opened
    opened.close()


def add(journal: Journal, *lines: dict[str, object]) -> None:
    for found in read(io.BytesIO("\n".join(map(json.dumps, lines)).encode()), "f"):
        assert isinstance(found, Record), found
        journal.add(found)


def complaints(journal: Journal) -> list[str]:
    preflight.plan(journal)
    return [str(each) for each in preflight.examine(journal, "acme")]


def workspace(path: str, **given: str) -> dict[str, object]:
    return {"kind": "workspace", "path": path, **given}


def group(slug: str, **given: str) -> dict[str, object]:
    return {"kind": "group", "slug": slug, **given}


def inside(outer: str, subject: str) -> dict[str, object]:
    return {"kind": "group_member", "group": outer, "subject": subject}


def member(object_: str, subject: str, role: str = "viewer") -> dict[str, object]:
    return {"kind": "member", "object": object_, "subject": subject, "role": role}


def test_lines_in_any_order_are_in_order(journal: Journal):
    add(
        journal,
        inside("external:1", "group:external:2"),
        member("eng/backend", "group:external:1"),
        workspace("eng/backend"),
        workspace("eng"),
        {"kind": "share", "workspace": "eng", "with_workspace": "", "role": "viewer"},
        group("staff", external_id="1"),
        group("leads", external_id="2"),
    )
    assert complaints(journal) == []
    assert journal.actions()["workspace"] == {"make": 2, "change": 0, "leave": 0}
    rows = journal.records("WHERE r.kind = 'workspace' AND r.done = 0 ORDER BY r.place, r.n")
    assert [row.name for row in rows] == ["eng", "eng/backend"]
    assert journal.records("WHERE r.kind = 'group_member'")[0].other == "group:leads"


def test_what_the_lines_name_has_to_be_there(journal: Journal):
    journal.saw(BEFORE, Kind.WORKSPACE, "ops", "", {"name": "ops"}, "ws_1", "2")
    journal.saw(BEFORE, Kind.GROUP, "old", "", {"name": "old", "external_id": "x-1"}, "grp_1", "2")
    add(
        journal,
        workspace("ops/a-new-one"),
        workspace("eng/backend"),
        member("ops", "group:external:x-1"),
        member("sales", "group:staff"),
        inside("none", "user:a"),
        inside("external:x-1", "group:external:x-2"),
        {"kind": "share", "workspace": "ops", "with_workspace": "sales", "role": "viewer"},
    )
    assert sorted(complaints(journal)) == [
        "f:2: path: there is no workspace eng, neither in the files nor in the tenant",
        "f:4: object: there is no workspace sales, neither in the files nor in the tenant",
        "f:4: subject: there is no group staff, neither in the files nor in the tenant",
        "f:5: group: there is no group none, neither in the files nor in the tenant",
        "f:6: subject: there is no group external:x-2, neither in the files nor in the tenant",
        "f:7: with_workspace: there is no workspace sales, neither in the files nor in the tenant",
    ]


def test_what_stands_there_twice_is_told_with_the_first(journal: Journal):
    add(
        journal,
        group("staff", external_id="1"),
        member("/", "group:staff"),
        member("/", "group:external:1", "admin"),
        {"kind": "user", "id": "a", "email": "a@acme.test"},
        {"kind": "user", "id": "b", "email": "A@acme.test"},
        {"kind": "user", "id": "c", "email": ""},
        {"kind": "user", "id": "d", "email": ""},
        group("others", external_id="1"),
        {"kind": "tenant", "slug": "hooli"},
    )
    assert sorted(complaints(journal)) == [
        "f:3: member workspace:/ group:staff stands in f:2 already",
        "f:5: email: is that of user a already",
        "f:8: external_id: is that of group staff already",
        "f:9: slug: is not acme, the tenant that this import is for",
    ]


def test_circles_of_groups_are_found_also_with_those_that_are_there(journal: Journal):
    journal.saw(BEFORE, Kind.GROUP, "old", "", {"name": "old"}, "grp_1", "2")
    journal.saw(BEFORE, Kind.GROUP_MEMBER, "old", "group:staff", {"manager": False})
    add(journal, group("staff"), group("leads"), inside("staff", "group:leads"), inside("leads", "group:old"))
    assert set(complaints(journal)) == {
        "f:3: subject: group staff would come to be in itself",
        "f:4: subject: group leads would come to be in itself",
    }


def test_groups_have_ten_levels_and_no_more(journal: Journal):
    slugs = [f"level-{number}" for number in range(11)]
    add(journal, *map(group, slugs), *(inside(a, f"group:{b}") for a, b in pairwise(slugs[:-1])))
    assert complaints(journal) == []
    add(journal, inside("level-9", "group:level-10"))
    assert complaints(journal) == ["f:12: subject: group level-0 would have more than 10 levels with it"]


def test_what_is_there_already_is_left_alone_or_changed(journal: Journal):
    journal.saw(BEFORE, Kind.USER, "a", "", {"email": "a@acme.test", "display_name": "A"}, "a", "3")
    journal.saw(BEFORE, Kind.USER, "b", "", {"email": "", "display_name": ""}, "b", "0")
    journal.saw(BEFORE, Kind.WORKSPACE, "eng", "", {"name": "Eng"}, "ws_1", "2")
    journal.saw(BEFORE, Kind.MEMBER, "workspace:eng", "user:a", {"role": "viewer"}, etag="4")
    add(
        journal,
        {"kind": "user", "id": "a", "email": "a@acme.test"},
        {"kind": "user", "id": "b", "display_name": ""},
        workspace("eng", name="Engineering"),
        member("eng", "user:a", "editor"),
        member("/", "user:a"),
    )
    assert complaints(journal) == []
    rows = journal.records("ORDER BY r.n")
    assert [(row.action, row.id, row.etag) for row in rows] == [
        ("leave", "a", "3"),
        ("make", "", ""),
        ("change", "ws_1", "2"),
        ("change", "", "4"),
        ("make", "", ""),
    ]


def test_what_is_in_the_way_in_the_tenant_is_told(journal: Journal):
    journal.saw(BEFORE, Kind.USER, "gone", "", {"email": "", "display_name": "", "deactivated": True}, "gone", "3")
    journal.saw(BEFORE, Kind.USER, "other", "", {"email": "A@acme.test", "display_name": ""}, "other", "3")
    journal.saw(BEFORE, Kind.WORKSPACE, "old", "", {"name": "old", "archived": True}, "ws_1", "2")
    journal.saw(BEFORE, Kind.WORKSPACE, "ops", "", {"name": "ops"}, "ws_2", "2")
    journal.saw(BEFORE, Kind.GROUP, "staff", "", {"name": "staff", "external_id": "1"}, "grp_1", "2")
    journal.saw(BEFORE, Kind.SHARE, "ops", "", {"role": "viewer"}, "shr_1", "2")
    add(
        journal,
        {"kind": "user", "id": "a", "email": "a@acme.test"},
        member("ops", "user:gone"),
        workspace("old", name="Old"),
        workspace("old/inner"),
        member("old", "user:a"),
        group("leads", external_id="1"),
        {"kind": "share", "workspace": "ops", "with_workspace": "", "role": "admin"},
        {
            "kind": "share",
            "workspace": "",
            "with_workspace": "ops",
            "role": "admin",
            "expire_time": "2020-01-01T00:00Z",
        },
    )
    assert sorted(complaints(journal)) == [
        "f:1: email: is that of user other already",
        "f:2: subject: user:gone is deactivated, for good",
        "f:3: path: workspace old is archived; unarchive it first",
        "f:4: path: workspace old is archived; unarchive it first",
        "f:5: object: workspace old is archived; unarchive it first",
        "f:6: external_id: is that of group staff already",
        "f:7: share ops / is there with another role or expiry; revoke that first",
        "f:8: expire_time: takes a time in the future",
    ]


def test_the_highest_roles_go_first_and_calls_are_of_a_bounded_size(journal: Journal):
    add(journal, *(member("/", f"user:{n}") for n in range(600)), member("/", "user:boss", "owner"))
    preflight.plan(journal)
    first = journal.records("WHERE r.kind = 'member' AND r.batch = 0 ORDER BY r.place, r.n", limit=1000)
    assert (len(first), first[0].other) == (500, "user:boss")


def applied(journal: Journal, *lines: dict[str, object]) -> None:
    """As after an import of these: everything is there as it was made, with the etag 7."""
    add(journal, *lines)
    preflight.plan(journal)
    journal.run("UPDATE records SET done = 1, etag = '7', id = 'id-' || n WHERE done = 0")
    for row in journal.records("ORDER BY r.n"):
        journal.saw(NOW, row.kind, row.name, row.other, row.given, row.id, row.etag)


IMPORTED = (
    workspace("eng"),
    group("staff"),
    inside("staff", "user:a"),
    member("eng", "group:staff"),
    member("tenant", "user:a", "member"),
)


def test_nothing_is_in_the_way_of_taking_back_what_nobody_touched(journal: Journal):
    applied(journal, *IMPORTED)
    assert list(obstacles.obstacles(journal)) == []
    obstacles.plan_undo(journal)
    how = dict(journal.rows("SELECT n, undo FROM records"))
    assert how == {1: "remove", 2: "remove", 3: "with", 4: "with", 5: "remove"}


@pytest.mark.parametrize(
    ("kind", "name", "other", "has", "line", "said"),
    [
        (Kind.WORKSPACE, "eng/new", "", {}, 1, "workspace eng: workspace eng/new is below it"),
        (Kind.MEMBER, "workspace:eng", "user:b", {}, 1, "workspace eng: member workspace:eng user:b is on it"),
        (Kind.SHARE, "eng", "ops", {}, 1, "workspace eng: share eng ops is of it"),
        (Kind.SHARE, "ops", "eng", {}, 1, "workspace eng: share ops eng is with it"),
        (Kind.GROUP_MEMBER, "staff", "user:b", {}, 2, "group staff: group_member staff user:b is of it"),
        (Kind.GROUP_MEMBER, "all", "group:staff", {}, 2, "group staff: group_member all group:staff is its place"),
        (Kind.MEMBER, "workspace:", "group:staff", {}, 2, "group staff: member workspace:/ group:staff is its role"),
        (Kind.MEMBER, "workspace:", "user:a", {}, 5, "member tenant user:a: member workspace:/ user:a would go"),
        (Kind.GROUP_MEMBER, "all", "user:a", {}, 5, "member tenant user:a: group_member all user:a would go with it"),
        (Kind.GROUP_MEMBER, "staff", "user:a", {"manager": True}, 3, "group_member staff user:a was changed since"),
        (Kind.MEMBER, "workspace:eng", "group:staff", {"role": "admin"}, 4, "group:staff was changed since"),
        (Kind.GROUP, "staff", "", {"name": "Everybody"}, 2, "group staff was changed since"),
        (Kind.WORKSPACE, "eng-moved", "", {}, 1, "workspace eng was changed since"),
    ],
)
def test_what_builds_on_an_import_is_named(
    journal: Journal, kind: Kind, name: str, other: str, has: dict[str, str | bool], line: int, said: str
):
    applied(journal, *IMPORTED[:1], group("staff", name="Staff"), *IMPORTED[2:])
    journal.saw(NOW, kind, name, other, has, id_="id-1" if name == "eng-moved" else "new", etag="8")
    [found] = obstacles.obstacles(journal)
    assert found.line == line
    assert found.message.startswith(said) or found.message.endswith(said)


def test_what_cannot_be_taken_back_stays_and_says_why(journal: Journal):
    journal.saw(BEFORE, Kind.WORKSPACE, "ops", "", {"name": "ops"}, "ws_1", "2")
    journal.saw(BEFORE, Kind.MEMBER, "workspace:ops", "user:a", {"role": "viewer"}, etag="2")
    journal.saw(NOW, Kind.MEMBER, "workspace:ops", "user:a", {"role": "viewer"}, etag="2")
    applied(
        journal, {"kind": "user", "id": "z"}, member("ops", "user:b", "owner"), member("tenant", "user:a", "member")
    )
    assert list(obstacles.obstacles(journal)) == []
    obstacles.plan_undo(journal)
    assert [undo.partition(":")[0] for (undo,) in journal.rows("SELECT undo FROM records ORDER BY n")] == ["stays"] * 3


def test_one_process_has_a_journal_at_a_time(journal: Journal):
    journal.note(state="applying")
    journal.commit()
    with pytest.raises(CallFailed, match="is in use by another import"):
        Journal(journal.path)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path):
    file = tmp_path / "acme.jsonl.import"
    file.write_text("something else, of some length, which is no database at all" * 9)
    with pytest.raises(CallFailed, match="is no journal of an import"):
        Journal(file)


def test_a_journal_is_for_its_owner_alone(journal: Journal):
    assert journal.path.stat().st_mode & 0o777 == 0o600
