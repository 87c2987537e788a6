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
