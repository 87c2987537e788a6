"""The lines of an import: what each says, and every complaint with its line and field."""

import io

import pytest

from pemba.cli.importing.lines import MAX_LINE_BYTES, Complaint, Kind, Record, read


def read_text(text: str | bytes, name: str = "acme.jsonl") -> list[Record | Complaint]:
    return list(read(io.BytesIO(text if isinstance(text, bytes) else text.encode()), name))


def only(text: str) -> Record:
    [record] = read_text(text)
    assert isinstance(record, Record), record
    return record


def complaints(text: str | bytes, name: str = "acme.jsonl") -> list[str]:
    return [str(found) for found in read_text(text, name) if isinstance(found, Complaint)]


@pytest.mark.parametrize(
    ("line", "kind", "name", "other", "given"),
    [
        ('{"kind": "user", "id": "a|b", "email": "a@b.test"}', "user", "a|b", "", {"email": "a@b.test"}),
        ('{"kind": "workspace", "path": "/eng/backend/"}', "workspace", "eng/backend", "", {}),
        ('{"kind": "group", "slug": "staff", "external_id": "00g1"}', "group", "staff", "", {"external_id": "00g1"}),
        (
            '{"kind": "tenant", "slug": "acme", "name": "Acme", "first_admin": "alice"}',
            *("tenant", "acme", "", {"name": "Acme", "first_admin": "alice"}),
        ),
        (
            '{"kind": "group_member", "group": "external:00g1", "subject": "user:user:x"}',
            *("group_member", "external:00g1", "user:user:x", {"manager": False}),
        ),
        (
            '{"kind": "member", "object": "/", "subject": "group:staff", "role": "editor"}',
            *("member", "workspace:", "group:staff", {"role": "member"}),
        ),
        (
            '{"kind": "member", "object": "tenant", "subject": "user:alice", "role": "admin"}',
            *("member", "tenant", "user:alice", {"role": "admin"}),
        ),
        (
            '{"kind":"share", "workspace":"/","with_workspace":"eng/","role":"viewer","expire_time":"20261231T19+01"}',
            *("share", "", "eng", {"role": "viewer", "expire_time": "2026-12-31T18:00:00Z"}),
        ),
    ],
)
def test_a_line_of_each_kind_is_read(line: str, kind: str, name: str, other: str, given: dict[str, object]):
    assert only(line) == Record("acme.jsonl", 1, Kind(kind), name, other, given)


WRONG = {
    "{": "is not JSON",
    "[]": "takes a JSON object",
    '{"kind": "user", "id": "a", "id": "b"}': "a field stands there twice",
    "[" * 50_000: "is not JSON",
    '{"id": "alice"}': "kind: is missing",
    '{"kind": ["user"]}': "kind: takes one of",
    '{"kind": "api_key"}': "kind: takes one of",
    '{"kind": "user"}': "id: is missing",
    '{"kind": "user", "id": 7}': "id: takes a text",
    '{"kind": "user", "id": "' + "a" * 300 + '"}': "id: takes a user id",
    '{"kind": "user", "id": "a\\ud800"}': "id: takes a user id",
    '{"kind": "user", "id": "a", "email": "nobody"}': "email: takes an email address",
    '{"kind": "user", "id": "a", "\\ud800": 1}': "is no field of this kind",
    '{"kind": "user", "id": "a", "phone": "1"}': "phone: is no field of this kind",
    '{"kind": "workspace", "path": "Eng"}': "path: takes slugs",
    '{"kind": "workspace", "path": "/"}': "path: takes a workspace below the root",
    '{"kind": "workspace", "path": "eng/admin"}': "path: admin: a reserved word",
    '{"kind": "workspace", "path": "' + "/".join(["abc"] * 20) + '"}': "path: stands too deep",
    '{"kind": "group", "slug": "admin"}': "slug: admin is a reserved word",
    '{"kind": "group_member", "group": "staff", "subject": "group:x-y", "manager": true}': "manager: takes false",
    '{"kind": "group_member", "group": "staff", "subject": "alice"}': "subject: takes user:ID",
    '{"kind": "group_member", "group": "staff", "subject": "user:a", "manager": "yes"}': "manager: takes true",
    '{"kind": "member", "object": "tenant", "subject": "user:a", "role": "owner"}': "role: takes a role that a tenant",
    '{"kind": "member", "object": "eng", "subject": "group:staff", "role": "owner"}': "has for a group",
    '{"kind": "member", "object": "eng", "subject": "user:a"}': "role: is missing",
    '{"kind": "member", "object": "eng", "subject": "user:a", "role": {}}': "role: takes a role",
    '{"kind": "share", "workspace": "ops", "with_workspace": "/ops", "role": "viewer"}': "takes another workspace",
    '{"kind": "share", "workspace": "ops", "with_workspace": "eng", "role": "owner"}': "role: takes a role that",
    '{"kind": "share", "workspace": "a-b", "with_workspace": "c-d", "role": "viewer", "expire_time": "2026-12-31"}': (
        "expire_time: takes a time with its zone"
    ),
}


@pytest.mark.parametrize(("line", "said"), WRONG.items())
def test_what_is_wrong_with_a_line_names_it_and_its_field(line: str, said: str):
    [complaint] = complaints(f"\n{line}\n")
    assert complaint.startswith("acme.jsonl:2: ")
    assert said in complaint


def test_everything_that_is_wrong_with_a_line_is_told_and_the_others_are_read():
    text = '{"kind": "member", "object": "Eng", "subject": "bob", "role": "boss"}\n{"kind": "user", "id": "alice"}\n'
    *wrong, record = read_text(text)
    assert [each.field for each in wrong if isinstance(each, Complaint)] == ["object", "subject", "role"]
    assert isinstance(record, Record)


def test_lines_that_are_too_long_or_not_utf_8_are_told_and_the_next_is_read():
    long = b'{"kind": "user", "id": "' + b"a" * (3 * MAX_LINE_BYTES) + b'"}\n'
    text = long + b"\xff\xfe\n" + b'{"kind": "user", "id": "alice"}'
    *wrong, record = read_text(text)
    assert [str(each) for each in wrong] == [
        f"acme.jsonl:1: is longer than {MAX_LINE_BYTES} bytes",
        "acme.jsonl:2: is not UTF-8",
    ]
    assert isinstance(record, Record)
    assert record.line == 3


def test_a_mark_of_the_byte_order_and_windows_line_ends_do_no_harm():
    found = read_text(b'\xef\xbb\xbf{"kind": "user", "id": "a"}\r\n\r\n{"kind": "user", "id": "b"}\r\n')
    assert [(each.line, each.name) for each in found if isinstance(each, Record)] == [(1, "a"), (3, "b")]


def test_csv_has_members():
    text = 'role,subject,object\neditor,"user:a,b",eng\nviewer,group:staff,/\nadmin,user:c,tenant\n'
    found = [each for each in read_text(text, "members.CSV") if isinstance(each, Record)]
    assert [(each.line, each.name, each.other, each.given["role"]) for each in found] == [
        (2, "workspace:eng", "user:a,b", "member"),
        (3, "workspace:", "group:staff", "viewer"),
        (4, "tenant", "user:c", "admin"),
    ]


def test_csv_without_its_columns_is_not_read():
    assert complaints("object,subject\neng,user:a\n", "members.csv") == [
        "members.csv:1: the first line takes the names of the columns: object,subject,role"
    ]


def test_what_is_wrong_with_a_line_of_csv_is_told():
    text = 'object,subject,role\neng,user:a\n"eng"x,user:a,viewer\neng,user:a,boss\n'
    assert [each.partition("takes")[0] for each in complaints(text, "members.csv")] == [
        "members.csv:2: ",
        "members.csv:3: ",
        "members.csv:4: role: ",
    ]
