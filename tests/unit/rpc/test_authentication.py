"""System keys: several at once, and nothing else gets in."""

import hashlib

import pytest

from pemba.errors import Unauthenticated
from pemba.model import Scope
from pemba.rpc.authentication import SystemKeys

FIRST, SECOND = "a" * 32, "b" * 32


@pytest.mark.parametrize("key", [FIRST, SECOND])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_every_key_of_the_list_is_a_system_key_with_every_scope(key, scheme):
    credential = SystemKeys([FIRST, SECOND]).authenticate(f"{scheme} {key}")
    assert credential.scopes == frozenset(Scope)
    assert credential.principal == "system_key:" + hashlib.sha256(key.encode()).hexdigest()[:8]
    assert credential.tenant_id is None


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        f"Bearer_{FIRST}",
        "Bearer ",
        f"Basic {FIRST}",
        FIRST,
        f"Bearer  {FIRST}",
        f"Bearer {FIRST}x",
        f"Bearer {FIRST[:-1]}",
    ],
)
def test_whatever_is_not_a_bearer_of_a_known_key_is_refused_in_the_same_words(authorization):
    with pytest.raises(Unauthenticated, match="authorization: takes `Bearer KEY`") as caught:
        SystemKeys([FIRST, SECOND]).authenticate(authorization)
    assert caught.value.reason == "KEY_INVALID"


def test_without_keys_nobody_gets_in():
    with pytest.raises(Unauthenticated):
        SystemKeys([]).authenticate("Bearer ")
