"""At 100,000 workspaces no statement reads a table from end to end that grows with what an installation keeps."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import asyncpg

import pemba.storage
from pemba.storage.statement import Statement

GROWING = {
    "users", "tenants", "workspaces", "memberships", "groups", "group_members", "shares", "tenant_head", "outbox",
    "tenant_delivery", "audit", "audit_mention", "idempotency", "workspace_settings",
}  # fmt: skip


ALL_OF_IT = "is about the whole of it, for an operator who asks, or once in a while"
BY_THE_PAGE = "a page of a thousand rows is joined as PostgreSQL finds it cheapest, in the background"
AS_IT_IS_ASKED = "is planned by the values given, which leave most of its conditions out (service/test_users.py)"
ALLOWED = {
    "delivery._DUE_SHARDS": "what is due is a difference of two tables: of a relay's shards every stream is looked at",
    "delivery._PRUNE_OUTBOX": BY_THE_PAGE,
    "delivery._PRUNE_IDEMPOTENCY": BY_THE_PAGE,
    "delivery._PRUNE_AUDIT": BY_THE_PAGE,
    "invariants._STATEMENTS": ALL_OF_IT,
    "lives._COUNT_MISSING": ALL_OF_IT,
    "outbox._STATUS": ALL_OF_IT,
    "outbox._SHARDS": ALL_OF_IT,
    "outbox_tail._START": ALL_OF_IT,
    "outbox_tail._MOVED": ALL_OF_IT,
    "settings._TENANTS_UNDER_OTHERS": ALL_OF_IT,
    "tuple_sources._ON_TENANTS": BY_THE_PAGE,
    "tuple_sources._ON_WORKSPACES": BY_THE_PAGE,
    "tuple_sources._GROUP_MEMBERS": BY_THE_PAGE,
    "tuple_sources._SHARES": BY_THE_PAGE,
    "user_search._SEARCH": AS_IT_IS_ASKED,
}


async def plan(connection: asyncpg.Connection, statement: Statement) -> Any:
    """The plan for whatever parameters; by a block of code, as the protocol prepares no EXPLAIN with parameters."""
    quoted = await connection.fetchval(
        "SELECT quote_literal($1)", f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {statement.sql}"
    )
    async with connection.transaction():
        await connection.execute(
            f"DO $do$ DECLARE plan json; BEGIN EXECUTE {quoted} INTO plan;"
            " PERFORM set_config('pemba.plan', plan::text, true); END $do$"
        )
        return json.loads(await connection.fetchval("SELECT current_setting('pemba.plan')"))


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "Node Type" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each)


def every_statement() -> dict[str, Statement]:
    """By the module and the name in it."""
    found: dict[str, Statement] = {}
    for module in pkgutil.walk_packages(pemba.storage.__path__, "pemba.storage."):
        if ".migrations" not in module.name:
            for name, value in vars(importlib.import_module(module.name)).items():
                for key, each in value.items() if isinstance(value, dict) else [("", value)]:
                    if isinstance(each, Statement):
                        found[f"{module.name.removeprefix('pemba.storage.')}.{name}{key and f'[{key}]'}"] = each
    return found


async def test_no_statement_reads_a_growing_table_from_end_to_end(connection: asyncpg.Connection) -> None:
    statements = every_statement()
    assert len(statements) > 150
    found: dict[str, set[str]] = {}
    for name, statement in statements.items():
        scanned = {n["Relation Name"] for n in nodes(await plan(connection, statement)) if n["Node Type"] == "Seq Scan"}
        if scanned & GROWING and name.partition("[")[0] not in ALLOWED:
            found[name] = scanned & GROWING
    assert not found
