"""Who is let in: system keys, several at once, and API keys; and nothing else."""

import hashlib

import pytest

from pemba.errors import RateLimited, Reason, Unauthenticated
from pemba.model import Credential, Scope
from pemba.rpc.authentication import Authentication, SystemKeys
from pemba.rpc.limits import Admission
from pemba.service.key_secrets import hash_of, is_secret, new_secret

FIRST, SECOND = "a" * 32, "b" * 32
SECRET = new_secret()


class Secrets:
    """Knows one secret, and notes what it is asked."""

    def __init__(self):
        self.asked = []
        self.remembered = set()

    def remembers(self, secret):
        return secret in self.remembered

    async def credential(self, secret):
        self.asked.append(secret)
        return Credential("api_key:key_1", frozenset()) if secret == SECRET.text else None


@pytest.fixture
def secrets():
    return Secrets()


@pytest.fixture
def authenticate(secrets):
    authentication = Authentication(SystemKeys([FIRST, SECOND]), secrets, Admission(max_calls_of_a_caller=1))
    return lambda authorization: authentication.authenticate(authorization, "ipv4:127.0.0.1:1")


@pytest.mark.parametrize("key", [FIRST, SECOND])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_every_key_of_the_list_is_a_system_key_with_every_scope(authenticate, secrets, key, scheme):
    credential = await authenticate(f"{scheme} {key}")
    assert credential.scopes == frozenset(Scope)
    assert credential.principal == "system_key:" + hashlib.sha256(key.encode()).hexdigest()[:8]
    assert credential.tenant_id is None
    assert secrets.asked == []


async def test_what_looks_like_the_secret_of_an_api_key_is_looked_up(authenticate, secrets):
    assert (await authenticate(f"Bearer {SECRET.text}")).principal == "api_key:key_1"
    another = new_secret().text
    with pytest.raises(Unauthenticated, match="authorization: takes `Bearer KEY`"):
        await authenticate(f"Bearer {another}")
    assert secrets.asked == [SECRET.text, another]


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
        f"Basic {SECRET.text}",
        SECRET.text,
        f"Bearer {SECRET.text} ",
        f"Bearer {SECRET.text}x",
        f"Bearer {SECRET.text[:-1]}",
        f"Bearer {SECRET.text.upper()}",
    ],
    ids=range(15),  # the secret is another one in each process
)
async def test_whatever_looks_like_no_key_is_refused_in_the_same_words_and_not_looked_up(
    authenticate, secrets, authorization
):
    with pytest.raises(Unauthenticated, match="authorization: takes `Bearer KEY`") as caught:
        await authenticate(authorization)
    assert caught.value.reason is Reason.KEY_INVALID
    assert secrets.asked == []


async def test_without_keys_nobody_gets_in(secrets):
    with pytest.raises(Unauthenticated):
        await Authentication(SystemKeys([]), secrets, Admission(max_calls_of_a_caller=1)).authenticate("Bearer ", "")


def test_a_secret_is_32_random_bytes_behind_what_everybody_may_see():
    made = {new_secret().text for _ in range(100)}
    assert len(made) == 100
    assert all(is_secret(text) for text in made)
    assert SECRET.text.startswith(f"{SECRET.prefix}_")
    assert len(SECRET.prefix) == len("pemba_") + 8
    assert SECRET.hash == hash_of(SECRET.text) == hashlib.sha256(SECRET.text.encode()).digest()
    assert SECRET.text not in repr(SECRET)


async def test_an_address_that_comes_with_unknown_keys_has_no_further_one_looked_up_for_a_while(secrets):
    admission = Admission(max_calls_of_a_caller=1, peer_strangers_per_second=1)
    authenticate = Authentication(SystemKeys([FIRST]), secrets, admission).authenticate
    for port in range(2):
        with pytest.raises(Unauthenticated):
            await authenticate(f"Bearer {new_secret().text}", f"ipv4:192.0.2.1:{port}")
    looked_up = len(secrets.asked)
    with pytest.raises(RateLimited):
        await authenticate(f"Bearer {SECRET.text}", "ipv4:192.0.2.1:3")
    assert len(secrets.asked) == looked_up
    assert await authenticate(f"Bearer {FIRST}", "ipv4:192.0.2.1:4"), "a system key gets in from there"
    secrets.remembered.add(SECRET.text)
    assert await authenticate(f"Bearer {SECRET.text}", "ipv4:192.0.2.1:5"), "and so does a key that is known"
    secrets.remembered.clear()
    assert await authenticate(f"Bearer {SECRET.text}", "ipv4:192.0.2.2:6"), "another address is another"
