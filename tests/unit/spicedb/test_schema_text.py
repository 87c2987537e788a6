"""schema.zed, as a text."""

from __future__ import annotations

import re

from pemba.model import PERMISSIONS, SHARDS, TENANT_ROLES, WORKSPACE_ROLES
from pemba.spicedb import schema


def code() -> str:
    """The schema without its comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", schema.schema_text(), flags=re.DOTALL)


def block(definition: str) -> str:
    found = re.search(rf"definition {definition} \{{(.*?)\n\}}", code(), re.DOTALL)
    assert found, definition
    return found[1]


def test_pembas_own_schema_subtracts_and_intersects_nothing() -> None:
    """So that half of a change, which is several rows, only ever grants less than both states."""
    for expression in re.findall(r"permission \w+ = ([^\n]+)", code()):
        assert not re.search(r"[&]| - ", expression), expression


def test_what_may_subtract_is_seen_wherever_it_stands() -> None:
    own = schema.schema_text()
    assert not schema.may_subtract(own)
    assert not schema.may_subtract(own + "/* a - b, c.all(d) */ // e - f\ndefinition doc {}")
    for expression in ("viewer - banned", "viewer-banned", "(a->b - c)", "parent.all(view)", "parent . all (view)"):
        assert schema.may_subtract(own + f"definition doc {{\n permission view = {expression}\n}}"), expression
    caveat = "caveat soon(now timestamp, why string) {\n now - timestamp('2026') > duration('1h') && why != \"/*\" }"
    assert not schema.may_subtract(own + caveat)
    assert schema.may_subtract(own + caveat + "definition doc { permission view = a - b }" + caveat)
    for unread in ("caveat c(a map<int>) { a == {'b': 1} }", 'caveat c(a string) { a == r"\\" }', "caveat c(a int) {"):
        assert schema.may_subtract(own + unread), unread


def test_every_role_is_a_relation_and_every_permission_that_can_be_asked_exists() -> None:
    for definition, roles in (("tenant", TENANT_ROLES), ("workspace", WORKSPACE_ROLES)):
        assert set(roles) <= set(re.findall(r"relation (\w+):", block(definition)))
    for definition, permissions in PERMISSIONS.items():
        assert set(permissions) <= set(re.findall(r"permission (\w+) =", block(definition)))


def test_every_shard_has_its_fence() -> None:
    fences = re.findall(r"relation (shard_\d\d): mark", block("fence"))
    assert fences == [f"shard_{shard:02d}" for shard in range(SHARDS)]


def test_names_are_long_enough_for_spicedb() -> None:
    for name in re.findall(r"(?:definition|relation|permission) (\w+)", code()):
        assert re.fullmatch(r"[a-z][a-z0-9_]{1,62}[a-z0-9]", name), name
