"""Settings of workspaces: by namespace, bounded, and with secrets that are nowhere in the clear."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pemba.errors import ConcurrentUpdate, Forbidden, InvalidRequest, NotFound, PembaError, PreconditionFailed, Reason
from pemba.model import Role, UserId
from pemba.service.resealing import Resealed, Resealing
from pemba.service.sealing import Sealer
from pemba.service.settings import MAX_NAMES, MAX_NAMESPACES, SettingsChange, SettingsService
from pemba.storage.wakeup import Notifier

OLD, NEW = "o" * 32, "n" * 32
SECRET = "hunter2-✓-in-the-clear"


def service(parts, *root_secrets: str) -> SettingsService:
    return SettingsService(parts.mutations, Sealer(root_secrets or (OLD,)))


async def update(parts, workspace, namespace="mail", values=None, *, caller=None, of=None, **given):
    options = {key: given.pop(key) for key in ("etag", "request_id", "body_digest", "validate_only") if key in given}
    return await (of or service(parts)).update_settings(
        caller or parts.system,
        workspace.tenant_id,
        workspace.id,
        namespace=namespace,
        change=SettingsChange(**{"values": values or {}, "secrets": {}, **given}),
        options=parts.options("UpdateSettings", **options),
    )


async def get(parts, workspace, *namespaces: str, caller=None):
    found = await service(parts).get_settings(
        caller or parts.system, workspace.tenant_id, workspace.id, namespaces=namespaces
    )
    return found.record


async def secret(parts, workspace, name="password", namespace="mail", *, caller=None, of=None) -> str:
    read = await (of or service(parts)).get_secret(
        caller or parts.system,
        workspace.tenant_id,
        workspace.id,
        namespace=namespace,
        name=name,
        method="GetSecretSetting",
    )
    return read.record


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def test_i7_settings_are_set_by_name_and_what_is_not_named_stays(parts) -> None:
    tenant, root = await parts.tenant()
    changed = await update(parts, root, values={"port": 25, "tls": None, "to": ["ä", {"b": 1.5, "c": "\u2028"}]})
    assert changed.token == "", "nothing that a check could see"
    after = (await update(parts, root, values={"port": 26}, remove=["tls", "never-set"])).record
    assert after.values == {"port": 26, "to": ["ä", {"b": 1.5, "c": "\u2028"}]}
    await update(parts, root, "look", {"dark": True})
    assert [(of.namespace, of.values) for of in await get(parts, root)] == [
        ("look", {"dark": True}),
        ("mail", after.values),
    ]
    assert await get(parts, root, "mail", "other") == (after,)
    assert (await update(parts, root, "look", remove=["dark"])).record.values == {}
    assert [of.namespace for of in await get(parts, root)] == ["mail"]
    assert (await parts.operations(tenant))[1:] == [[]] * 4


async def test_replacing_removes_other_values_and_no_secret(parts) -> None:
    _, root = await parts.tenant()
    await update(parts, root, values={"a": 1, "b": 2}, secrets={"password": SECRET})
    after = (await update(parts, root, values={"b": 3}, replace=True)).record
    assert (after.values, [s.name for s in after.secrets]) == ({"b": 3}, ["password"])
    after = (await update(parts, root, remove=["password"], replace=True)).record
    assert (after.values, after.secrets, after.etag) == ({}, (), "")


async def test_an_etag_is_the_namespaces_and_changes_with_what_comes_back_too(parts) -> None:
    _, root = await parts.tenant()
    first = (await update(parts, root, values={"a": 1})).record.etag
    assert (await update(parts, root, values={"a": 1})).record.etag == first, "what is so already is no change"
    await update(parts, root, "look", {"a": 1})
    second = (await update(parts, root, values={"a": 2}, etag=first)).record.etag
    with pytest.raises(ConcurrentUpdate) as refused:
        await update(parts, root, values={"a": 3}, etag=first)
    assert refused.value.reason is Reason.ETAG_MISMATCH
    await update(parts, root, remove=["a"], etag=second)
    assert (await update(parts, root, values={"a": 2})).record.etag != second
    dry = await update(parts, root, values={"a": 9}, validate_only=True)
    assert dry.record.values == {"a": 9}
    assert (await get(parts, root))[1].values == {"a": 2}


async def test_i7_a_secret_is_given_out_by_its_own_call_alone_which_is_audited(parts) -> None:
    tenant, root = await parts.tenant()
    changed = await update(
        parts, root, values={"a": 1}, secrets={"password": SECRET}, request_id="r1", body_digest=b"x"
    )
    again = await update(parts, root, values={"a": 1}, secrets={"password": SECRET}, request_id="r1", body_digest=b"x")
    assert again == replace(changed, replayed=True)
    [told] = await get(parts, root)
    assert ([s.name for s in told.secrets], told.values) == (["password"], {"a": 1})
    assert await secret(parts, root) == SECRET
    for name, namespace in (("a", "mail"), ("other", "mail"), ("password", "look")):
        assert await refusal(secret(parts, root, name, namespace)) is Reason.NOT_FOUND
    audited = await parts.sql(
        "SELECT method, object, after, outcome FROM audit WHERE tenant_id = $1 ORDER BY id", tenant.id
    )
    assert [r["method"] for r in audited] == ["CreateTenant", "UpdateSettings", "GetSecretSetting"]
    assert [r["outcome"] for r in audited] == ["changed", "changed", "read"]
    assert audited[1]["after"] == {"namespace": "mail", "values": {"a": 1}, "secrets": ["password"], "removed": []}
    assert (audited[2]["object"], audited[2]["after"]) == (
        f"workspace:{root.id}",
        {"namespace": "mail", "read": "password"},
    )
    assert SECRET not in f"{changed} {told}"


async def test_i7_a_secret_is_nowhere_in_the_database_in_the_clear(parts) -> None:
    _, root = await parts.tenant()
    given = {"secrets": {"password": SECRET}, "request_id": "r1", "body_digest": b"digest-of-the-request"}
    await update(parts, root, **given)
    await secret(parts, root)
    tables = await parts.sql(
        "SELECT DISTINCT table_name::text AS name FROM information_schema.role_table_grants"
        " WHERE grantee = 'pemba_system' AND privilege_type = 'SELECT'"
    )
    assert {"workspace_settings", "audit", "idempotency", "outbox"} <= {r["name"] for r in tables}
    for table in tables:
        for row in await parts.sql(f"SELECT to_jsonb(t) AS row FROM {table['name']} t"):
            text = json.dumps(row["row"], ensure_ascii=False)
            assert "hunter2" not in text
            assert b"digest-of-the-request".hex() not in text, "by which guesses could be tried"


async def test_what_is_a_secret_does_not_become_a_value_by_itself(parts) -> None:
    _, root = await parts.tenant()
    await update(parts, root, secrets={"password": SECRET})
    with pytest.raises(InvalidRequest, match=r"values\.password"):
        await update(parts, root, values={"password": "x"})
    await update(parts, root, remove=["password"])
    await update(parts, root, values={"password": "x"})
    hidden = (await update(parts, root, secrets={"password": SECRET})).record
    assert (hidden.values, await secret(parts, root)) == ({}, SECRET)


@pytest.mark.parametrize("column", ["workspace_id", "namespace", "name", "tenant_id"])
async def test_i7_a_ciphertext_that_was_moved_to_another_row_does_not_decrypt(parts, column) -> None:
    _, root = await parts.tenant()
    _, other_root = await parts.tenant()
    child = await parts.workspace(root, "child")
    await update(parts, root, secrets={"password": SECRET})
    there = {
        "workspace_id": {"workspace": child},
        "namespace": {"namespace": "look"},
        "name": {"name": "token"},
        "tenant_id": {"workspace": other_root},
    }[column]
    place = {"workspace": root, "namespace": "mail", "name": "password", **there}
    await update(parts, place["workspace"], place["namespace"], secrets={place["name"]: "another"})
    moved = await parts.sql(
        "UPDATE workspace_settings SET sealed = (SELECT sealed FROM workspace_settings WHERE workspace_id = $1"
        " AND namespace = 'mail' AND name = 'password') WHERE workspace_id = $2 AND namespace = $3 AND name = $4"
        " RETURNING name",
        root.id,
        place["workspace"].id,
        place["namespace"],
        place["name"],
    )
    assert len(moved) == 1
    assert (
        await refusal(secret(parts, place["workspace"], place["name"], place["namespace"])) is Reason.SECRET_UNREADABLE
    )
    assert await secret(parts, root) == SECRET


async def test_rights_on_settings_are_those_of_who_administers(parts) -> None:
    _, root = await parts.tenant("alice")
    top = await parts.workspace(root, "top", owner="olga")
    for user, role in (("adam", Role.ADMIN), ("mia", Role.MEMBER)):
        await parts.role(top, user, role)
    await update(parts, top, values={"a": 1}, secrets={"password": SECRET})
    await parts.role(root, "rob", Role.ADMIN)

    def calls(user: str, on):
        caller = parts.acting(user)
        return (
            get(parts, on, caller=caller),
            update(parts, on, values={"a": 2}, caller=caller),
            secret(parts, on, caller=caller),
        )

    for user in ("alice", "olga", "adam", "rob"):
        for call in calls(user, top):
            await call
    for user, on in (("mia", top), ("rob", root)):
        for call in calls(user, on):
            with pytest.raises(Forbidden):
                await call
    for call in calls("mallory", top):
        with pytest.raises(NotFound):
            await call
    refused = await parts.sql("SELECT method FROM audit WHERE reason = 'ROLE_MISSING' AND acting_user = 'mia'")
    assert {r["method"] for r in refused} == {"UpdateSettings", "GetSecretSetting"}


async def test_p5_a_personal_workspaces_settings_are_its_users_and_go_with_it(parts) -> None:
    tenant, _ = await parts.tenant("alice")
    changed = await parts.workspaces.create_personal_workspace(
        parts.system, tenant.id, user_id=UserId("bob"), name="", options=parts.options()
    )
    mine, bob = changed.record, parts.acting("bob")
    await update(parts, mine, values={"a": 1}, secrets={"password": SECRET}, caller=bob)
    assert await secret(parts, mine, caller=bob) == SECRET
    for caller in (parts.acting("alice"), replace(parts.system, tenant_id=tenant.id)):
        for call in (
            get(parts, mine, caller=caller),
            update(parts, mine, values={"a": 2}, caller=caller),
            secret(parts, mine, caller=caller),
        ):
            with pytest.raises(NotFound, match=f"^workspace {mine.id} was not found$"):
                await call
    await parts.remove(tenant, "bob", allow_missing=True)
    assert await parts.sql("SELECT FROM workspace_settings") == []


async def test_an_archived_workspaces_settings_stand_still(parts) -> None:
    _, root = await parts.tenant()
    top = await parts.workspace(root, "top")
    await update(parts, top, values={"a": 1}, secrets={"password": SECRET})
    await parts.workspaces.archive_workspace(parts.system, top.tenant_id, top.id, options=parts.options())
    assert await refusal(update(parts, top, values={"a": 2})) is Reason.WORKSPACE_ARCHIVED
    assert (await get(parts, top))[0].values == {"a": 1}


async def test_a_namespace_and_a_workspace_take_so_much(parts) -> None:
    _, root = await parts.tenant()
    for values in (
        {f"n{n}": 1 for n in range(MAX_NAMES + 1)},
        {"a": "x" * 65_536},
        {"a": [[0] * 1000, [0] * 1000]},
    ):
        with pytest.raises(PreconditionFailed) as refused:
            await update(parts, root, values=values)
        assert refused.value.reason is Reason.SETTINGS_TOO_LARGE
    await update(parts, root, values={f"n{n}": 1 for n in range(MAX_NAMES - 1)}, secrets={"password": SECRET})
    assert await refusal(update(parts, root, values={"one": 1})) is Reason.SETTINGS_TOO_LARGE
    for n in range(MAX_NAMESPACES - 1):
        await update(parts, root, f"n{n}", {"a": 1})
    assert await refusal(update(parts, root, "more", {"a": 1})) is Reason.SETTINGS_TOO_LARGE
    await update(parts, root, "n1", {"a": 2})


async def test_i7_a_change_of_root_secrets_encrypts_anew_and_needs_the_old_one_until_then(parts) -> None:
    """Several times as many as are encrypted at once, in two tenants, and one that cannot be read."""
    roots = [(await parts.tenant())[1] for _ in range(2)]
    for n in range(3):
        for root in roots:
            await update(parts, root, f"n{n}", secrets={f"s{m}": f"{n}-{m}" for m in range(MAX_NAMES // 2)})
    await update(parts, roots[0], secrets={"lost": "x"}, of=service(parts, "l" * 32))
    await update(parts, roots[0], values={"a": 1})
    both, new = service(parts, NEW, OLD), service(parts, NEW)
    assert await secret(parts, roots[0], "s1", "n1", of=both) == "1-1"
    assert await refusal(secret(parts, roots[0], "s1", "n1", of=new)) is Reason.SECRET_UNREADABLE
    notifier = Notifier(parts.database)
    resealing = Resealing(parts.database, notifier, Sealer([NEW, OLD]))
    assert await resealing.everything(parts.system) == Resealed(600, 1)
    assert await resealing.everything(parts.system) == Resealed(0, 1)
    await notifier.close()
    for root in roots:
        assert await secret(parts, root, "s99", "n2", of=new) == "2-99"
    assert await refusal(secret(parts, roots[0], "lost", of=both)) is Reason.SECRET_UNREADABLE
    told = await parts.sql("SELECT after, principal FROM audit WHERE method = 'ReencryptSecrets' ORDER BY id")
    assert sum(r["after"]["secrets"] for r in told) == 600
    assert {r["principal"] for r in told} == {"system_key:test"}


async def test_a_lost_secret_can_be_set_anew(parts) -> None:
    _, root = await parts.tenant()
    await update(parts, root, secrets={"password": "x"}, of=service(parts, "l" * 32))
    await update(parts, root, secrets={"password": SECRET})
    assert await secret(parts, root) == SECRET
