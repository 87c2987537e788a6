"""The keys of issuers: had in the background, bounded in time and size, and kept while they cannot be had."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm

from pemba.errors import ConfigError, Unavailable
from pemba.rpc import jwks as module
from pemba.rpc.issuers import Issuer, read_issuers
from pemba.rpc.jwks import IssuerKeys, parse_keys, require_readable
from tests.unit.rpc.signing import AUDIENCE, ISSUER, RSA, jwk, jwks, serving_jwks

GOOD = {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["RS256"], "jwks_url": "https://id.acme.test/jwks"}


def issuer(**changed):
    return Issuer.model_validate({**GOOD, **changed})


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def server():
    async with serving_jwks() as server:
        yield server


@pytest.fixture
def keys(server, clock):
    return IssuerKeys(issuer(jwks_url=server.url), clock=clock, fetch_seconds=5)


async def test_a_key_is_had_once_and_is_good_for_its_algorithm_alone(server, keys):
    assert await keys.find("RS256", "RS256")
    assert await keys.find("RS256", "RS256")
    assert await keys.find("RS256", "PS256") is None
    assert await keys.find("ES256", "ES256") is None, "the issuer's algorithms are pinned"
    assert server.asked == 1


async def test_a_new_key_is_found_and_unknown_ones_ask_once_in_a_while(server, keys, clock):
    assert await keys.find("RS256", "RS256")
    server.body = jwks(jwk("RS256", kid="new"))
    for number in range(10):
        assert await keys.find(f"unknown-{number}", "RS256") is None
    assert server.asked == 1
    clock.now = module.UNKNOWN_SECONDS
    assert await keys.find("new", "RS256")
    assert await keys.find("RS256", "RS256") is None, "a key that its issuer took away is gone"
    assert server.asked == 2


async def test_all_who_come_at_once_wait_for_one_answer(server, keys):
    server.silent.clear()
    waiting = [asyncio.create_task(keys.find("RS256", "RS256")) for _ in range(20)]
    await server.arrived.acquire()
    server.silent.set()
    assert all(await asyncio.gather(*waiting))
    assert server.asked == 1


async def test_no_more_than_so_many_wait_for_a_slow_issuer(server, keys, monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    server.silent.clear()
    waiting = asyncio.create_task(keys.find("RS256", "RS256"))
    await server.arrived.acquire()
    with pytest.raises(Unavailable, match="too many callers wait"):
        await keys.find("RS256", "RS256")
    server.silent.set()
    assert await waiting


async def test_the_last_keys_are_kept_for_a_while_where_the_issuer_is_away(server, keys, clock):
    assert await keys.find("RS256", "RS256")
    server.status = "503 Service Unavailable"
    clock.now = 3600
    assert not await keys.refresh()
    assert await keys.find("RS256", "RS256")
    clock.now = 3601
    with pytest.raises(Unavailable) as caught:
        await keys.find("RS256", "RS256")
    assert caught.value.reason == "ISSUER_UNAVAILABLE"


async def test_without_any_keys_it_is_the_issuer_that_is_away_and_not_the_token_that_is_wrong(server, keys):
    server.status = "404 Not Found"
    with pytest.raises(Unavailable, match="issuer"):
        await keys.find("RS256", "RS256")


@pytest.mark.parametrize(
    ("status", "headers"),
    [("302 Found", "location: /elsewhere\r\n"), ("307 Temporary Redirect", "location: /elsewhere\r\n")],
)
async def test_no_redirect_is_followed(server, keys, status, headers):
    server.status, server.headers = status, headers
    assert not await keys.refresh()
    assert server.asked == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys": 7}', b"[" * 5000, b"\xff", jwks(*[{}] * 101)], ids=range(7)
)
async def test_what_is_no_jwks_changes_nothing(server, keys, body):
    assert await keys.refresh()
    server.body = body
    assert not await keys.refresh()
    assert await keys.find("RS256", "RS256")


async def test_an_answer_without_end_is_cut(server):
    server.endless = True
    async with asyncio.timeout(4):
        assert not await IssuerKeys(issuer(jwks_url=server.url), fetch_seconds=60).refresh()


async def test_an_answer_that_does_not_come_is_not_waited_for(server, clock):
    server.silent.clear()
    async with asyncio.timeout(2):
        assert not await IssuerKeys(issuer(jwks_url=server.url), clock=clock, fetch_seconds=0.05).refresh()


async def test_keys_are_had_again_before_anybody_waits(server):
    quick = Issuer.model_construct(**{**issuer(jwks_url=server.url).__dict__, "jwks_refresh_seconds": 0.01})
    keys = IssuerKeys(quick)
    running = asyncio.create_task(keys.run())
    try:
        async with asyncio.timeout(5):
            for _ in range(3):
                await server.arrived.acquire()
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_file_is_read_again(tmp_path, clock):
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks())
    keys = IssuerKeys(issuer(jwks_url="", jwks_file=file), clock=clock)
    assert await keys.find("RS256", "RS256")
    file.write_bytes(jwks(jwk("RS256", kid="new")))
    clock.now = module.UNKNOWN_SECONDS
    assert await keys.find("new", "RS256")


def test_keys_that_are_weak_private_for_something_else_or_malformed_are_left_out():
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    private = {**json.loads(RSAAlgorithm.to_jwk(RSA)), "kid": "private"}
    private.pop("key_ops", None)
    everything = issuer(algorithms=["RS256", "ES256", "ES384", "EdDSA"])
    listed = [
        *(jwk("RS256", weak, kid="weak"), private, {**jwk("RS256"), "kid": 7}, jwk("RS256", kid="enc", use="enc")),
        *(jwk("RS256", kid="other", alg="RS512"), {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}, "text", None, []),
        *({**jwk("RS256", kid="bad"), "n": "!"}, {"kty": ["RSA"], "kid": "list"}, {"kty": "RSA", "kid": "empty"}),
        {**jwk("ES256", ec.generate_private_key(ec.SECP384R1()), kid="curve"), "crv": "P-256"},
    ]
    assert set(parse_keys(json.dumps({"keys": listed}).encode(), everything)) == set()
    assert set(parse_keys(jwks(), everything)) == {(each, each) for each in ("RS256", "ES256", "EdDSA")}


WRONG = {
    "unknown field": {"jwks": "x"},
    "no audience": {"audience": ""},
    "alg none": {"algorithms": ["none"]},
    "a secret's algorithm": {"algorithms": ["RS256", "HS256"]},
    "no algorithm": {"algorithms": []},
    "plaintext": {"jwks_url": "http://id.acme.test/jwks"},
    "no loopback": {"jwks_url": "http://127.0.0.1.evil.test/"},
    "a password": {"jwks_url": "https://me:secret@id.acme.test/"},
    "a file's URL": {"jwks_url": "file:///etc/passwd"},
    "two sources": {"jwks_file": "/tmp/jwks"},
    "no source": {"jwks_url": ""},
    "a wider scope": {"scopes": ["read", "act_as"]},
    "no scope": {"scopes": ["everything"]},
    "a workspace of no tenant": {"workspace_claim": "workspace"},
    "kept too short": {"jwks_keep_seconds": 299},
    "blank prefix": {"user_prefix": " "},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_that_are_wrong_are_refused_by_their_name(tmp_path, wrong):
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps([{**GOOD, **WRONG[wrong]}]))
    with pytest.raises(ConfigError, match="PEMBA_JWT_ISSUERS_FILE"):
        read_issuers(file)


@pytest.mark.parametrize(
    "others",
    [
        [{}],
        [{"issuer": "https://two.test"}],
        [{"issuer": "https://two.test", "user_prefix": "a"}, {"issuer": "https://three.test", "user_prefix": "ab"}],
    ],
    ids=["twice", "two primary ones", "prefixes that begin alike"],
)
def test_users_of_two_issuers_cannot_have_one_name(tmp_path, others):
    file = tmp_path / "issuers.json"
    file.write_text(json.dumps([GOOD, *({**GOOD, **other} for other in others)]))
    with pytest.raises(ConfigError, match="PEMBA_JWT_ISSUERS_FILE"):
        read_issuers(file)


@pytest.mark.parametrize("text", ["{", "{}", "[7]", "\xff"])
def test_what_is_no_list_of_issuers_is_refused(tmp_path, text):
    (tmp_path / "issuers.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="PEMBA_JWT_ISSUERS_FILE"):
        read_issuers(tmp_path / "issuers.json")


def test_the_example_is_a_file_of_issuers():
    primary, other = read_issuers(Path(__file__).parents[3] / "examples/jwt-issuers.json")
    assert (primary.user_prefix, other.user_prefix) == ("", "example:")


def test_a_file_of_keys_is_looked_at_when_the_server_starts(tmp_path):
    assert read_issuers(None) == ()
    with pytest.raises(ConfigError):
        read_issuers(tmp_path / "missing.json")
    file = tmp_path / "jwks.json"
    for body in (None, b"{", jwks(jwk("ES256"))):
        if body is not None:
            file.write_bytes(body)
        with pytest.raises(ConfigError, match="jwks_file"):
            require_readable([issuer(jwks_url="", jwks_file=file)])
    file.write_bytes(jwks())
    require_readable([issuer(jwks_url="", jwks_file=file)])
