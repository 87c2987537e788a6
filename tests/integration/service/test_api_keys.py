"""API keys: whose they are to make, rotate and revoke, what is stored of them, and what two at once come to."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pemba.errors import ConcurrentUpdate, Forbidden, InvalidRequest, PembaError, Reason
from pemba.model import Caller, Role, Scope, SystemScope, Tenant, UserId
from pemba.service.key_secrets import hash_of, is_secret
from pemba.storage import api_keys, outbox
from tests.integration.conftest import SYSTEM, Parts
from tests.integration.instruments import Gate, one_behind_the_other
from tests.truth import require_no_gap

DAY = 24 * 3600.0
SCOPES = frozenset(Scope)


@pytest.fixture
async def acme(parts: Parts) -> Tenant:
    """With `alice` as its admin, and `bob`, a member."""
    tenant, _ = await parts.tenant()
    await parts.role(tenant, "bob", Role.MEMBER)
    return tenant


@pytest.fixture
async def other(parts: Parts) -> Tenant:
    tenant, _ = await parts.tenant("mallory")
    return tenant


def with_key(tenant: Tenant, user: str = "", scopes: frozenset[Scope] = SCOPES) -> Caller:
    """A caller with a key of the tenant, in its own name or for a user."""
    return Caller("api_key:key_test", scopes, UserId(user) if user else None, tenant.id, "call-1", "peer")


async def refusal(call) -> Reason:
    with pytest.raises(PembaError) as refused:
        await call
    return refused.value.reason


async def listed(parts: Parts, caller: Caller, tenant: Tenant | None, user: str = "", **given: object) -> list[str]:
    found: list[str] = []
    token = ""
    options = {"include_revoked": False, "page_size": 2, **given}
    while True:
        page = await parts.keys.list_api_keys(
            caller,
            tenant.id if tenant else None,
            user_id=UserId(user) if user else None,
            page_token=token,
            **options,
        )
        found += [key.id for key in page.records]
        token = page.next_page_token
        if not token:
            return found


# -- made -------------------------------------------------------------------------------------------------


async def test_what_is_stored_of_a_secret_is_its_hash_and_nothing_else_anywhere(parts: Parts, acme: Tenant) -> None:
    made = await parts.key(acme, Scope.READ, Scope.CHECK, request_id="r-1")
    rotated = await parts.rotate_key(made.changed.record, seconds=DAY, request_id="r-2")
    of_nobody = await parts.key(None, request_id="r-3")
    for secret, key in ((made.secret, made), (rotated.secret, rotated), (of_nobody.secret, of_nobody)):
        assert is_secret(secret)
        assert secret.startswith(f"{key.changed.record.prefix}_")
    tables = await parts.sql("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'")
    readable = [t["name"] for t in tables if t["name"] not in ("alembic_version", "relay_lease")]
    for table in readable:
        rows = await parts.sql(f"SELECT to_jsonb(t)::text AS row FROM {table} t")
        text = json.dumps([row["row"] for row in rows])
        for issued in (made, rotated, of_nobody):
            assert issued.secret not in text, table
            assert issued.secret.rpartition("_")[2] not in text, table
    hashes = {bytes(row["secret_hash"]) for row in await parts.sql("SELECT secret_hash FROM api_keys")}
    assert hashes == {hash_of(rotated.secret), hash_of(of_nobody.secret)}
    assert made.secret not in repr(made.changed)


async def test_a_replay_leaves_the_secret_out_and_says_so(parts: Parts, acme: Tenant) -> None:
    made = await parts.key(acme, request_id="r-1")
    again = await parts.key(acme, request_id="r-1")
    assert (again.changed, again.secret) == (replace(made.changed, replayed=True), "")
    rotated = await parts.rotate_key(made.changed.record, request_id="r-2")
    again = await parts.rotate_key(made.changed.record, request_id="r-2")
    assert (again.changed, again.secret) == (replace(rotated.changed, replayed=True), "")
    of_nobody = await parts.key(None, request_id="r-1")
    again = await parts.key(None, request_id="r-1")
    assert (again.changed, again.secret) == (replace(of_nobody.changed, replayed=True), "")


async def test_a_dry_run_makes_no_key_and_tells_no_secret(parts: Parts, acme: Tenant) -> None:
    for tenant in (acme, None):
        dry = await parts.key(tenant, validate_only=True)
        assert (dry.secret, dry.changed.token) == ("", "")
        assert await listed(parts, SYSTEM, tenant) == []


async def test_an_expiry_is_to_come_by_the_databases_clock(parts: Parts, acme: Tenant) -> None:
    now = datetime.now(UTC)
    for until in (now - timedelta(hours=1), datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(InvalidRequest) as refused:
            await parts.key(acme, until=until)
        assert [v.field for v in refused.value.violations] == ["expire_time"]
    assert (await parts.key(acme, until=now + timedelta(hours=1))).changed.record.expire_time > now


@pytest.mark.parametrize("of_tenant", [True, False])
async def test_nobody_gives_a_key_more_scopes_than_they_have(parts: Parts, acme: Tenant, of_tenant: bool) -> None:
    tenant = acme if of_tenant else None
    caller = replace(SYSTEM, scopes=frozenset({Scope.ADMIN, Scope.READ}))
    made = await parts.key(tenant, Scope.READ, Scope.ADMIN, caller=caller)
    wide = await parts.key(tenant, Scope.READ, Scope.CHECK)
    with pytest.raises(Forbidden) as refused:
        await parts.key(tenant, Scope.READ, Scope.CHECK, caller=caller)
    assert (refused.value.reason, refused.value.metadata) == (Reason.SCOPE_MISSING, {"scope": "check"})
    assert await refusal(parts.rotate_key(wide.changed.record, caller)) is Reason.SCOPE_MISSING
    await parts.rotate_key(made.changed.record, caller)
    await parts.revoke_key(wide.changed.record, caller)


async def test_a_tenants_keys_are_for_its_admins_to_make(parts: Parts, acme: Tenant, other: Tenant) -> None:
    for caller in (parts.acting("alice"), with_key(acme), with_key(acme, "alice"), SYSTEM):
        assert (await parts.key(acme, caller=caller)).changed.record.tenant_id == acme.id
    assert await refusal(parts.key(acme, caller=parts.acting("bob"))) is Reason.ROLE_MISSING
    for caller in (parts.acting("carol"), with_key(other), with_key(other, "mallory"), with_key(other, "alice")):
        assert await refusal(parts.key(acme, caller=caller)) is Reason.NOT_FOUND


async def test_a_system_key_is_for_system_keys_to_make(parts: Parts, acme: Tenant) -> None:
    assert (await parts.key(None)).changed.record.tenant_id is None
    assert await refusal(parts.key(None, caller=parts.acting("alice"))) is Reason.ROLE_MISSING
    for caller in (with_key(acme), with_key(acme, "alice")):
        assert await refusal(parts.key(None, caller=caller)) is Reason.NOT_FOUND


async def test_users_make_their_own_keys_and_nobody_elses(parts: Parts, acme: Tenant) -> None:
    bob = parts.acting("bob")
    for tenant in (acme, None):
        made = (await parts.key(tenant, user="bob", caller=bob)).changed.record
        assert (made.user_id, made.created_by) == ("bob", "bob")
        assert (await parts.key(tenant, user="bob")).changed.record.user_id == "bob"
        assert await refusal(parts.key(tenant, user="alice", caller=bob)) is Reason.ROLE_MISSING
        assert await refusal(parts.key(tenant, user="bob", caller=parts.acting("alice"))) is Reason.ROLE_MISSING
    assert await refusal(parts.key(acme, user="bob", caller=with_key(acme))) is Reason.ROLE_MISSING
    assert (await parts.key(acme, user="bob", caller=with_key(acme, "bob"))).changed.record.user_id == "bob"
    assert await refusal(parts.key(None, user="bob", caller=with_key(acme, "bob"))) is Reason.NOT_FOUND
    assert await refusal(parts.key(acme, user="nobody")) is Reason.NOT_FOUND


async def test_who_is_suspended_makes_no_key_and_who_is_deactivated_has_none(parts: Parts, acme: Tenant) -> None:
    of_tenant, of_nobody, alices = [
        (await parts.key(tenant, user=user)).changed.record
        for tenant, user in ((acme, "bob"), (None, "bob"), (None, "alice"))
    ]
    await parts.suspend("bob")
    assert await refusal(parts.key(None, user="bob", caller=parts.acting("bob"))) is Reason.USER_SUSPENDED
    await parts.deactivate("bob")
    for tenant in (acme, None):
        assert await refusal(parts.key(tenant, user="bob")) is Reason.USER_DEACTIVATED
    for key in (of_tenant, of_nobody):
        assert (await parts.keys.get_api_key(SYSTEM, key.tenant_id, key.id)).record.revoke_time is not None
    assert (await parts.keys.get_api_key(SYSTEM, None, alices.id)).record == alices


# -- seen -------------------------------------------------------------------------------------------------


async def test_whose_a_key_is_not_to_them_it_is_not_there(parts: Parts, acme: Tenant, other: Tenant) -> None:
    of_tenant = (await parts.key(acme)).changed.record
    of_bob = (await parts.key(acme, user="bob")).changed.record
    of_system = (await parts.key(None)).changed.record
    bobs_own = (await parts.key(None, user="bob")).changed.record
    confined = replace(with_key(acme), workspace_id="ws_01h455vb4pex5vsknk084sn02q")
    sees = {
        "system": (SYSTEM, [of_tenant, of_bob, of_system, bobs_own]),
        "admin": (parts.acting("alice"), [of_tenant, of_bob]),
        "tenant's key": (with_key(acme), [of_tenant, of_bob]),
        "member": (parts.acting("bob"), [of_bob, bobs_own]),
        "member by a tenant's key": (with_key(acme, "bob"), [of_bob]),
        "nobody": (parts.acting("carol"), []),
        "another tenant's admin": (parts.acting("mallory"), []),
        "another tenant's key": (with_key(other), []),
        "a workspace's key": (confined, []),
    }
    for who, (caller, seen) in sees.items():
        for key in (of_tenant, of_bob, of_system, bobs_own):
            for doing in (
                parts.keys.get_api_key(caller, key.tenant_id, key.id),
                parts.revoke_key(key, caller, validate_only=True),
            ):
                if key in seen:
                    await doing
                else:
                    assert await refusal(doing) is Reason.NOT_FOUND, (who, key)
            wrong_place = None if key.tenant_id else acme.id
            assert await refusal(parts.keys.get_api_key(caller, wrong_place, key.id)) is Reason.NOT_FOUND
        for tenant in (acme, None):
            mine = [key.id for key in seen if key.tenant_id == (tenant.id if tenant else None)]
            if mine:
                assert await listed(parts, caller, tenant) == mine, who
    assert await listed(parts, parts.acting("carol"), None) == []
    for caller, tenant in ((with_key(other), acme), (confined, acme), (parts.acting("carol"), acme)):
        assert await refusal(listed(parts, caller, tenant)) is Reason.NOT_FOUND
    assert await refusal(listed(parts, with_key(acme), None)) is Reason.NOT_FOUND


async def test_keys_are_listed_by_their_users_and_those_that_were_revoked_on_request(
    parts: Parts, acme: Tenant
) -> None:
    first, second, third = [(await parts.key(acme, user=user)).changed.record for user in ("", "bob", "bob")]
    await parts.revoke_key(second)
    assert await listed(parts, SYSTEM, acme) == [first.id, third.id]
    assert await listed(parts, SYSTEM, acme, "bob") == [third.id]
    assert await listed(parts, SYSTEM, acme, "bob", include_revoked=True) == [second.id, third.id]
    assert await listed(parts, parts.acting("bob"), acme, include_revoked=True) == [second.id, third.id]
    assert await listed(parts, parts.acting("bob"), acme, "alice") == []


# -- revoked and rotated ----------------------------------------------------------------------------------


@pytest.mark.parametrize("of_tenant", [True, False])
async def test_a_key_is_revoked_once_and_for_good(parts: Parts, acme: Tenant, of_tenant: bool) -> None:
    key = (await parts.key(acme if of_tenant else None)).changed.record
    with pytest.raises(ConcurrentUpdate):
        await parts.revoke_key(key, etag="another")
    revoked = (await parts.revoke_key(key, etag=key.etag)).record
    assert revoked.revoke_time is not None
    assert revoked.etag != key.etag
    assert (await parts.revoke_key(key)).record == revoked
    assert await refusal(parts.rotate_key(key)) is Reason.API_KEY_ENDED
    stream = acme.id if of_tenant else "~"
    rows = await parts.sql("SELECT * FROM audit WHERE tenant_id = $1 AND object = $2", stream, f"api_key:{key.id}")
    changed = [row for row in rows if row["method"] == "RevokeApiKey" and row["before"] != row["after"]]
    [row] = changed
    assert (row["before"]["revoke_time"], row["after"]["id"]) == (None, key.id)


async def test_the_key_of_a_suspended_tenant_is_revoked_all_the_same(parts: Parts, acme: Tenant) -> None:
    key = (await parts.key(acme)).changed.record
    await parts.tenants.suspend_tenant(SYSTEM, acme.id, options=parts.options())
    assert await refusal(parts.rotate_key(key)) is Reason.TENANT_SUSPENDED
    assert (await parts.revoke_key(key)).record.revoke_time is not None


async def test_a_users_key_is_rotated_by_them_and_revoked_by_admins_too(parts: Parts, acme: Tenant) -> None:
    key = (await parts.key(acme, user="bob")).changed.record
    assert await refusal(parts.rotate_key(key, parts.acting("alice"))) is Reason.ROLE_MISSING
    assert await refusal(parts.rotate_key(key, with_key(acme))) is Reason.ROLE_MISSING
    rotated = await parts.rotate_key(key, parts.acting("bob"))
    assert rotated.changed.record.prefix != key.prefix
    assert (await parts.revoke_key(key, parts.acting("alice"))).record.revoke_time is not None


async def test_while_an_overlap_runs_another_is_refused_and_none_ends_it(parts: Parts, acme: Tenant) -> None:
    key = (await parts.key(acme)).changed.record
    first = (await parts.rotate_key(key, seconds=DAY)).changed.record
    left = first.previous_secret_expire_time - datetime.now(UTC)
    assert abs(left.total_seconds() - DAY) < 60
    assert await refusal(parts.rotate_key(key, seconds=1.0)) is Reason.ROTATION_UNDER_WAY
    assert (await parts.keys.get_api_key(SYSTEM, acme.id, key.id)).record == first
    last = await parts.rotate_key(key)
    assert last.changed.record.previous_secret_expire_time <= datetime.now(UTC) + timedelta(seconds=5)
    async with parts.database.begin(SystemScope("test")) as tx:
        _, found = await api_keys.find(tx, [hash_of(last.secret)])
    assert found[hash_of(last.secret)].current
    await parts.rotate_key(key, seconds=1.0)


async def test_an_expired_key_gets_no_other_secret(parts: Parts, acme: Tenant) -> None:
    key = (await parts.key(acme, until=datetime.now(UTC) + timedelta(hours=1))).changed.record
    await parts.sql("UPDATE api_keys SET expire_time = now() - interval '1 s'")
    assert await refusal(parts.rotate_key(key)) is Reason.API_KEY_ENDED


# -- at once ----------------------------------------------------------------------------------------------


@pytest.mark.race
@pytest.mark.parametrize("of_tenant", [True, False])
async def test_of_two_rotations_at_once_with_an_overlap_one_is_refused(
    parts: Parts, acme: Tenant, monkeypatch: pytest.MonkeyPatch, of_tenant: bool
) -> None:
    """Whoever made the first secret can rely on its overlap; neither is lost without a word."""
    key = (await parts.key(acme if of_tenant else None)).changed.record
    gate = Gate(monkeypatch, api_keys, "rotate")
    first, second = await one_behind_the_other(
        parts, gate, parts.rotate_key(key, seconds=60), lambda: parts.rotate_key(key, seconds=60)
    )
    assert second.reason is Reason.ROTATION_UNDER_WAY
    [row] = await parts.sql("SELECT secret_hash FROM api_keys WHERE id = $1", key.id)
    assert bytes(row["secret_hash"]) == hash_of(first.secret)


@pytest.mark.race
@pytest.mark.parametrize("of_tenant", [True, False])
async def test_of_two_rotations_at_once_with_an_etag_one_is_refused(
    parts: Parts, acme: Tenant, monkeypatch: pytest.MonkeyPatch, of_tenant: bool
) -> None:
    key = (await parts.key(acme if of_tenant else None)).changed.record
    gate = Gate(monkeypatch, api_keys, "rotate")
    first, second = await one_behind_the_other(
        parts, gate, parts.rotate_key(key, etag=key.etag), lambda: parts.rotate_key(key, etag=key.etag)
    )
    assert first.secret
    assert second.reason is Reason.ETAG_MISMATCH


@pytest.mark.parametrize("of_tenant", [True, False])
async def test_a_rotation_behind_a_revocation_brings_nothing_back(
    parts: Parts, acme: Tenant, monkeypatch: pytest.MonkeyPatch, of_tenant: bool
) -> None:
    key = (await parts.key(acme if of_tenant else None)).changed.record
    gate = Gate(monkeypatch, api_keys, "revoke")
    _, second = await one_behind_the_other(parts, gate, parts.revoke_key(key), lambda: parts.rotate_key(key))
    assert second.reason is Reason.API_KEY_ENDED


async def test_a_key_made_while_its_user_is_deactivated_is_refused_or_revoked(
    parts: Parts, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, api_keys, "insert")
    await one_behind_the_other(parts, gate, parts.key(acme, user="bob"), lambda: parts.deactivate("bob"))
    monkeypatch.undo()
    gate = Gate(monkeypatch, api_keys, "revoke_of_user")
    await parts.role(acme, "carol", Role.MEMBER)
    _, late = await one_behind_the_other(parts, gate, parts.deactivate("carol"), lambda: parts.key(acme, user="carol"))
    assert late.reason is Reason.USER_DEACTIVATED
    good = await parts.sql("SELECT FROM api_keys WHERE revoke_time IS NULL")
    assert good == []


async def test_the_stream_stays_gap_free(parts: Parts, acme: Tenant, database_url: str) -> None:
    key = (await parts.key(acme)).changed.record
    await asyncio.gather(*(parts.rotate_key(key) for _ in range(5)), parts.revoke_key(key), return_exceptions=True)
    await require_no_gap(database_url, acme.id)
    async with parts.database.begin(SystemScope("test")) as tx:
        assert await outbox.head(tx, acme.id)
