"""Request context is read from metadata, or refused by the name of the key that is wrong."""

import pytest

from pemba.errors import Forbidden, InvalidRequest
from pemba.model import Credential, Scope
from pemba.rpc.context import Call, CallMetadata, body_digest, caller_of
from pemba.v1.tenants_pb2 import CreateTenantRequest, SuspendTenantRequest, UpdateTenantRequest

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
SYSTEM = Credential("system_key:12345678", frozenset(Scope))


@pytest.mark.parametrize(
    ("text", "user"),
    [("user:alice", "alice"), ("user%3Aalice", "alice"), ("user:%C3%A9lo%C3%AFse", "éloïse"), ("user:a#b", "a#b")],
)
def test_the_acting_user_is_percent_decoded(text, user):
    assert CallMetadata([("pemba-on-behalf-of", text)]).acting_user() == user


@pytest.mark.parametrize(
    "text", ["", "alice", "group:x", "user:", "user:%", "user:%zz", "user:%ff", "user:%00", "user: a"]
)
def test_a_malformed_acting_user_is_refused_and_never_ignored(text):
    with pytest.raises(InvalidRequest, match="pemba-on-behalf-of"):
        CallMetadata([("pemba-on-behalf-of", text)]).acting_user()


@pytest.mark.parametrize("text", ["", "acme", "ws_01kafa7q0ve8x9m1t2b3c4d5e6", TENANT_ID.upper(), TENANT_ID + " "])
def test_a_malformed_tenant_is_refused_and_never_ignored(text):
    with pytest.raises(InvalidRequest, match="pemba-tenant"):
        CallMetadata([("pemba-tenant", text)]).tenant_id()


@pytest.mark.parametrize("text", ["", "root", TENANT_ID])
def test_a_malformed_workspace_is_refused_and_never_ignored(text):
    with pytest.raises(InvalidRequest, match="pemba-workspace"):
        CallMetadata([("pemba-workspace", text)]).workspace_id()


@pytest.mark.parametrize("key", ["authorization", "pemba-on-behalf-of", "pemba-tenant", "pemba-workspace"])
def test_a_key_that_is_given_twice_is_refused(key):
    metadata = CallMetadata([(key, "user:a"), (key, "user:b")])
    reads = (metadata.authorization, metadata.acting_user, metadata.tenant_id, metadata.workspace_id)
    refused = []
    for read in reads:
        try:
            read()
        except InvalidRequest as error:
            refused.append(error.violations[0])
    assert [(v.field, v.description) for v in refused] == [(key, "is given twice")]


def test_the_callers_own_request_id_is_kept():
    assert CallMetadata([("x-request-id", "r-1")]).request_id() == "r-1"


@pytest.mark.parametrize("given", ["", "x" * 129, "a\tb"])
def test_a_request_id_that_cannot_stand_in_a_log_is_replaced(given):
    made = CallMetadata([("x-request-id", given)]).request_id()
    assert made not in ("", given)
    assert len(made) == 32


def test_acting_for_a_user_takes_a_scope_of_its_own():
    credential = Credential("key:1", frozenset(Scope) - {Scope.ACT_AS})
    with pytest.raises(Forbidden) as caught:
        caller_of(credential, CallMetadata([("pemba-on-behalf-of", "user:alice")]), "r1", "peer")
    assert (caught.value.reason, caught.value.metadata) == ("SCOPE_MISSING", {"scope": "act_as"})
    assert caller_of(credential, CallMetadata([]), "r1", "peer").acting_user is None


def test_the_digest_of_a_body_depends_on_all_but_its_request_id():
    first = CreateTenantRequest(slug="acme", name="Acme", request_id="1")
    again = CreateTenantRequest(slug="acme", name="Acme", request_id="2")
    other = CreateTenantRequest(slug="acme", name="Acme Inc", request_id="1")
    assert body_digest("/x/A", first) == body_digest("/x/A", again)
    assert body_digest("/x/A", first) != body_digest("/x/A", other)
    assert body_digest("/x/A", first) != body_digest("/x/B", first)
    assert first.request_id == "1"


def test_options_carry_what_every_mutation_says_besides_its_arguments():
    call = Call(caller_of(SYSTEM, CallMetadata([]), "r1", "peer"), "/pemba.v1.TenantService/UpdateTenant", 0.0)
    request = UpdateTenantRequest(tenant_id=TENANT_ID, etag="e1", request_id="i1", validate_only=True)
    options = call.options(request)
    assert (options.method, options.request_id, options.etag, options.validate_only) == (
        "UpdateTenant",
        "i1",
        "e1",
        True,
    )
    assert options.body_digest == body_digest(call.method, request)


def test_a_request_id_of_more_than_128_characters_is_refused():
    call = Call(caller_of(SYSTEM, CallMetadata([]), "r1", "peer"), "/pemba.v1.TenantService/SuspendTenant", 0.0)
    call.options(SuspendTenantRequest(request_id="é" * 128))
    with pytest.raises(InvalidRequest, match="request_id: takes at most 128"):
        call.options(SuspendTenantRequest(request_id="é" * 129))
