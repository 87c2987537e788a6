"""Filters and orders: what is taken, and what is refused by name."""

import pytest

from pemba.errors import InvalidRequest
from pemba.rpc.filters import MAX_FILTER_CHARACTERS, order, text_matches
from pemba.service.workspace_search import TextMatch

FIELDS = ("name", "slug")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("name:eng", [TextMatch("name", "eng", whole=False)]),
        ('  slug = "a b"  ', [TextMatch("slug", "a b", whole=True)]),
        (r'name:"a \"b\" \\c"', [TextMatch("name", 'a "b" \\c', whole=False)]),
        ("name:a AND slug=b", [TextMatch("name", "a", whole=False), TextMatch("slug", "b", whole=True)]),
        ('name:"a AND b"', [TextMatch("name", "a AND b", whole=False)]),
        ("name:ANDREW", [TextMatch("name", "ANDREW", whole=False)]),
    ],
)
def test_restrictions_joined_with_and_are_taken(text, expected):
    assert list(text_matches(text, FIELDS)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "name", "name:", ":a", "name:a AND", "AND name:a", "name:a slug:b", "name:a OR slug:b", "-name:a", "NOT name:a",
        "(name:a)", 'name:"a', r'name:"\n"', "name!=a", "name>a", "kind:a", "name.first:a", 'name:"a"b', "name:a\0",
        "name:" + "a" * MAX_FILTER_CHARACTERS,
    ],
)  # fmt: skip
def test_anything_else_is_refused_and_names_the_field(text):
    with pytest.raises(InvalidRequest) as refused:
        text_matches(text, FIELDS)
    assert [violation.field for violation in refused.value.violations] == ["filter"]


def test_an_order_is_one_field_and_a_direction():
    assert order("", FIELDS) == ("", False)
    assert order("name", FIELDS) == order("name asc", FIELDS) == ("name", False)
    assert order(" name  desc ", FIELDS) == ("name", True)


@pytest.mark.parametrize("text", ["kind", "name down", "name, slug", "name desc desc", " ", "desc"])
def test_another_order_is_refused_and_names_the_field(text):
    with pytest.raises(InvalidRequest) as refused:
        order(text, FIELDS)
    assert [violation.field for violation in refused.value.violations] == ["order_by"]
