"""Whom a JWT stands for, and what must not pass for one."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pemba.errors import NotFound, Reason, Unauthenticated
from pemba.model import Scope, TenantId, WorkspaceId
from pemba.rpc.authentication import Authentication, SystemKeys
from pemba.rpc.issuers import Issuer
from pemba.rpc.jwt_callers import JwtCallers
from pemba.rpc.limits import Admission
from tests.unit.rpc.conftest import TENANT_ID, WORKSPACE_ID
from tests.unit.rpc.signing import AUDIENCE, ISSUER, RSA, claims, jwks, token

OTHER = "https://login.example.test"


class Places:
    """Knows one tenant and one workspace of it."""

    def __init__(self):
        self.asked = []

    async def find(self, tenant, workspace):
        self.asked.append((tenant, workspace))
        if tenant not in ("acme", TENANT_ID) or workspace not in ("", "eng", WORKSPACE_ID):
            raise NotFound(f"tenant {tenant}")
        return TenantId(TENANT_ID), WorkspaceId(WORKSPACE_ID) if workspace else None


@pytest.fixture
def places():
    return Places()


@pytest.fixture
def callers(tmp_path, places):
    """Callers with the issuer of the tests as the primary one, its settings changed, and with others."""
    (tmp_path / "jwks").write_bytes(jwks())
    common = {"audience": AUDIENCE, "algorithms": ["RS256", "ES256", "EdDSA"], "jwks_file": tmp_path / "jwks"}

    def make(*others, **changed):
        primary = Issuer.model_validate({"issuer": ISSUER, **common, **changed})
        return JwtCallers([primary, *(Issuer.model_validate({**common, **other}) for other in others)], places)

    return make


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_stands_for_its_user_and_for_nothing_wider(callers, algorithm):
    credential = await callers().credential(token(algorithm))
    assert (credential.principal, credential.user_id) == ("jwt:alice", "alice")
    assert credential.scopes == {Scope.CHECK, Scope.READ, Scope.WRITE}
    assert (credential.tenant_id, credential.workspace_id) == (None, None)


async def test_one_of_several_audiences_is_enough(callers):
    assert await callers().credential(token(aud=["web", AUDIENCE]))


async def test_clocks_may_differ_by_a_minute(callers):
    now = int(time.time())
    assert await callers().credential(token(exp=now - 30, nbf=now + 30, iat=now + 30))


def changed_header(good, **changed):
    """The token with another header, signed as it was."""
    header = {**jwt.get_unverified_header(good), **changed}
    return ".".join([part(header), *good.split(".")[1:]])


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def signed_with_the_public_key(public):
    text = ".".join([part({"alg": "HS256", "kid": "RS256", "typ": "JWT"}), part(claims())])
    signature = hmac.digest(public, text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


ANOTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = RSA.public_key()
GOOD = token()
BODY = part(claims())
ANOTHERS_JWK = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(ANOTHER.public_key()))

ATTACKS = {
    "no signature": f"{part({'alg': 'none'})}.{BODY}.",
    "alg none": f"{part({'alg': 'none', 'kid': 'RS256'})}.{BODY}.AA",
    "alg None": changed_header(GOOD, alg="None"),
    "alg missing": changed_header(GOOD, alg=None),
    "alg a list": changed_header(GOOD, alg=["RS256"]),
    "HS256 with the public key, PEM": signed_with_the_public_key(
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 with the public key, DER": signed_with_the_public_key(
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ),
    "an algorithm of another key": changed_header(GOOD, alg="ES256"),
    "an algorithm that is not pinned": token("PS256", RSA, {"kid": "RS256"}),
    "another key": token(key=ANOTHER),
    "another key, brought along": token(key=ANOTHER, headers={"jwk": ANOTHERS_JWK}),
    "another key, to be fetched": token(key=ANOTHER, headers={"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}),
    "kid of nobody": token(headers={"kid": "nobody"}),
    "kid of another key": token(headers={"kid": "ES256"}),
    "kid a path": token(headers={"kid": "../../dev/null"}),
    "kid missing": jwt.encode(claims(), RSA, "RS256"),
    "kid a number": changed_header(GOOD, kid=1),
    "crit": token(headers={"crit": ["exp"], "exp": 1}),
    "b64": token(headers={"b64": False}),
    "another audience": token(aud="somebody else"),
    "no audience": token(aud=None),
    "audience a number": token(aud=7),
    "another issuer": token(iss="https://evil.test"),
    "no issuer": token(iss=None),
    "issuer a list": f"{part({'alg': 'RS256', 'kid': 'RS256'})}.{part({**claims(), 'iss': [ISSUER]})}.AAAA",
    "not yet": token(nbf=int(time.time()) + 3600),
    "of the future": token(iat=int(time.time()) + 3600),
    "no expiry": token(exp=None),
    "expiry a word": token(exp="tomorrow"),
    "expiry infinite": token(exp=float("inf")),
    "expiry no number": token(exp=float("nan")),
    "no subject": token(sub=None),
    "empty subject": token(sub=""),
    "subject too long": token(sub="a" * 257),
    "subject not printable": token(sub="ali\nce"),
    "subject with a blank": token(sub=" alice"),
    "changed body": f"{GOOD.split('.')[0]}.{part(claims(sub='root'))}.{GOOD.split('.')[2]}",
    "cut signature": GOOD[:-6],
    "no base64": f"{GOOD}!",
    "padding": f"{GOOD}==",
    "odd base64": f"A.{GOOD.split('.', 1)[1]}",
    "two parts": GOOD.rpartition(".")[0],
    "four parts": f"{GOOD}.AA",
    "five parts, encrypted": "eyJhbGciOiJSU0EtT0FFUCJ9.AA.AA.AA.AA",
    "no JSON": "AAAA.AAAA.AAAA",
    "header a list": f"{part([])}.{BODY}.AAAA",
    "body a list": f"{part({'alg': 'RS256', 'kid': 'RS256'})}.{part([])}.AAAA",
    "nested": f"{base64.urlsafe_b64encode(b'[' * 3000).decode()}.{BODY}.AAAA",
    "nested body": f"{part({'alg': 'RS256', 'kid': 'RS256'})}.{base64.urlsafe_b64encode(b'[' * 3000).decode()}.AAAA",
    "huge": token(filler="x" * 8192),
    "hidden blank": f" {GOOD}",
    "empty": "",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_is_not_as_it_must_be_lets_nobody_in(callers, places, attack):
    assert await callers(tenant_claim="tenant").credential(ATTACKS[attack]) is None
    assert places.asked == []


async def test_a_good_token_among_the_attacks_is_good(callers):
    assert await callers().credential(GOOD)


async def test_an_expired_token_is_told_so_and_only_where_it_was_good(callers):
    past = int(time.time()) - 3600
    with pytest.raises(Unauthenticated) as caught:
        await callers().credential(token(exp=past))
    assert caught.value.reason is Reason.KEY_EXPIRED
    assert await callers().credential(token(exp=past, key=ANOTHER)) is None


async def test_without_issuers_no_token_is_read(places):
    assert await JwtCallers([], places).credential(GOOD) is None


async def test_users_of_other_issuers_have_their_prefix_and_nobody_else_has(callers):
    issuers = callers({"issuer": OTHER, "user_prefix": "okta:"})
    assert (await issuers.credential(token(iss=OTHER))).user_id == "okta:alice"
    assert (await issuers.credential(token(sub="alice:okta:"))).user_id == "alice:okta:"
    assert await issuers.credential(token(sub="okta:alice")) is None
    assert await issuers.credential(token(iss=OTHER, sub="")) is None
    assert await issuers.credential(token(iss=OTHER, sub="a" * 252)) is None


async def test_scopes_are_the_settings_and_a_claim_only_takes_some_away(callers):
    assert (await callers(scopes=["read"]).credential(token(scope="read write admin"))).scopes == {Scope.READ}
    claimed = callers(scopes=["read", "check"], scope_claim="scope")
    assert (await claimed.credential(token(scope="openid read admin act_as write"))).scopes == {Scope.READ}
    assert (await claimed.credential(token(scope=["check", 7]))).scopes == {Scope.CHECK}
    for nothing in ({}, {"scope": "readcheck"}, {"scope": 7}, {"scope": {"read": True}}):
        assert (await claimed.credential(token(**nothing))).scopes == frozenset()


async def test_claims_of_a_tenant_and_a_workspace_restrict(callers, places):
    claimed = callers(tenant_claim="tenant", workspace_claim="workspace")
    for tenant, workspace in (("acme", "eng"), (TENANT_ID, WORKSPACE_ID)):
        credential = await claimed.credential(token(tenant=tenant, workspace=workspace))
        assert (credential.tenant_id, credential.workspace_id) == (TENANT_ID, WORKSPACE_ID)
    assert (await claimed.credential(token(tenant="acme"))).workspace_id is None
    assert (await claimed.credential(token())).tenant_id is None


@pytest.mark.parametrize("wrong", [{"tenant": "umbrella"}, {"tenant": "acme", "workspace": "sales"}], ids=str)
async def test_a_place_that_is_not_there_is_an_error_and_never_a_wider_scope(callers, wrong):
    with pytest.raises(NotFound):
        await callers(tenant_claim="tenant", workspace_claim="workspace").credential(token(**wrong))


@pytest.mark.parametrize(
    "wrong",
    [{"tenant": ""}, {"tenant": 7}, {"tenant": []}, {"tenant": "a\0b"}, {"workspace": "eng"}, {"tenant": "a" * 2049}],
    ids=str,
)
async def test_a_claim_that_names_nothing_is_no_lack_of_one(callers, places, wrong):
    claimed = callers(tenant_claim="tenant", workspace_claim="workspace")
    assert await claimed.credential(token(**wrong)) is None
    with_null = jwt.encode({**claims(), "tenant": None}, RSA, "RS256", headers={"kid": "RS256"})
    assert await claimed.credential(with_null) is None
    assert places.asked == []


async def test_a_token_is_refused_in_the_same_words_as_a_key(callers, secrets_of_nobody):
    authentication = Authentication(SystemKeys([]), secrets_of_nobody, Admission(max_calls_of_a_caller=1), callers())
    assert (await authentication.authenticate(f"Bearer {GOOD}", "ipv4:192.0.2.1:1")).user_id == "alice"
    with pytest.raises(Unauthenticated, match="authorization: takes `Bearer KEY`") as caught:
        await authentication.authenticate(f"Bearer {ATTACKS['another key']}", "ipv4:192.0.2.1:1")
    assert caught.value.reason is Reason.KEY_INVALID


@pytest.fixture
def secrets_of_nobody():
    class Nobody:
        def remembers(self, secret):
            return False

        async def credential(self, secret):
            return None

    return Nobody()
