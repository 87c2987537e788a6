"""Consistency tokens and page tokens."""

from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemba.errors import InvalidRequest, Reason
from pemba.model import Seq, TenantId
from pemba.tokens import MAX_POSITIONS, ConsistencyToken, Keys, Signer, decode_token, encode_token, hkdf_sha256

EPOCH = uuid.UUID(int=7)
OLD, NEW = "o" * 32, "n" * 32
TENANT = TenantId("ten_01h455vb4pex5vsknk084sn02q")

positions = st.dictionaries(
    st.sampled_from([TenantId(f"ten_{i:026d}") for i in range(40)] + [TenantId("~")]),
    st.integers(0, 2**63 - 1).map(Seq),
    min_size=1,
    max_size=MAX_POSITIONS,
)


def test_hkdf_is_that_of_rfc_5869_without_salt() -> None:
    # RFC 5869, test case 3, cut to the first block's 32 bytes.
    assert hkdf_sha256(b"\x0b" * 22, b"").hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"


@given(positions)
def test_a_token_says_what_was_put_into_it(named: dict[TenantId, Seq]) -> None:
    keys = Keys([b"k" * 32], "test")
    assert decode_token(keys, encode_token(keys, ConsistencyToken(EPOCH, named))) == ConsistencyToken(EPOCH, named)


@given(st.binary(max_size=200))
def test_what_we_did_not_make_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode_token(Keys([b"k" * 32], "test"), base64.urlsafe_b64encode(raw).decode())
    assert refused.value.reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("text", ["", "%", "ü", "a" * 5000, "AAAA=", " "])
def test_what_is_no_token_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_token(Keys([b"k" * 32], "test"), text)


def test_every_single_bit_counts() -> None:
    keys = Keys([b"k" * 32], "test")
    raw = bytearray(base64.urlsafe_b64decode(encode_token(keys, ConsistencyToken(EPOCH, {TENANT: Seq(3)})) + "=="))
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidRequest):
            decode_token(keys, base64.urlsafe_b64encode(changed).decode())


def test_an_older_secret_still_verifies_and_the_first_one_signs() -> None:
    before, after = Signer([OLD], EPOCH), Signer([NEW, OLD], EPOCH)
    token = before.token({TENANT: Seq(1)})
    assert after.positions(token).positions == {TENANT: 1}
    with pytest.raises(InvalidRequest):
        before.positions(after.token({TENANT: Seq(1)}))


def test_keys_of_another_purpose_do_not_verify() -> None:
    token = encode_token(Keys([b"k" * 32], "one"), ConsistencyToken(EPOCH, {TENANT: Seq(1)}))
    with pytest.raises(InvalidRequest):
        decode_token(Keys([b"k" * 32], "another"), token)


def test_a_page_token_is_bound_to_the_arguments_of_its_list() -> None:
    signer = Signer([NEW], EPOCH)
    token = signer.page_token(["ListTenants"], ["acme"])
    assert signer.page_position(["ListTenants"], token) == ["acme"]
    with pytest.raises(InvalidRequest, match="other arguments"):
        signer.page_position(["ListWorkspaces"], token)
    with pytest.raises(InvalidRequest, match="page_token"):
        signer.page_position(["ListTenants"], token[:-2])
