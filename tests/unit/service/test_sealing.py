"""Secrets at rest: who opens what, and what is bound to its place."""

from __future__ import annotations

import base64

import pytest

from pemba.errors import PreconditionFailed, Reason
from pemba.service.sealing import Sealer

OLD, NEW, OTHER = "o" * 32, "n" * 32, "x" * 32
PLACE = ("ten_a", "ws_a", "mail", "password")
SECRET = "hunter2 ✓"


def unreadable(sealer: Sealer, place: tuple[str, ...], sealed: str) -> bool:
    with pytest.raises(PreconditionFailed) as refused:
        sealer.open(place, sealed)
    return refused.value.reason is Reason.SECRET_UNREADABLE and SECRET not in refused.value.message


def test_i7_what_is_sealed_is_opened_in_its_place_and_says_nothing() -> None:
    sealer = Sealer([OLD])
    first, second = sealer.seal(PLACE, SECRET), sealer.seal(PLACE, SECRET)
    assert sealer.open(PLACE, first.text) == SECRET
    assert first.text != second.text
    assert SECRET.encode() not in base64.urlsafe_b64decode(first.text)
    assert SECRET not in repr(sealer) + repr(first)


@pytest.mark.parametrize("part", range(4))
def test_i7_a_ciphertext_that_is_moved_to_another_place_does_not_decrypt_there(part: int) -> None:
    sealer = Sealer([OLD])
    elsewhere = tuple("other" if n == part else text for n, text in enumerate(PLACE))
    assert unreadable(sealer, elsewhere, sealer.seal(PLACE, SECRET).text)


def test_places_are_not_run_together() -> None:
    sealer = Sealer([OLD])
    assert unreadable(sealer, ("a", "bc", "d", "e"), sealer.seal(("ab", "c", "d", "e"), SECRET).text)
    assert unreadable(sealer, ("a", 'b", "c', "d", "e"), sealer.seal(("a", "b", "c", "d", "e"), SECRET).text)


def test_i7_the_first_root_secret_encrypts_and_all_decrypt() -> None:
    before, between, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    old = before.seal(PLACE, SECRET)
    assert between.open(PLACE, old.text) == SECRET
    new = between.seal(PLACE, between.open(PLACE, old.text))
    assert (new.under, old.under) == (after.under, before.under)
    assert new.under != old.under
    assert after.open(PLACE, new.text) == SECRET
    assert unreadable(before, PLACE, new.text)
    assert unreadable(after, PLACE, old.text)
    assert unreadable(Sealer([OTHER]), PLACE, old.text)


def test_what_was_tampered_with_or_is_no_ciphertext_is_unreadable() -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(PLACE, SECRET).text
    for text in ("", "x", sealed[:-4], sealed[:40] + ("A" if sealed[40] != "A" else "B") + sealed[41:]):
        assert unreadable(sealer, PLACE, text)


def test_a_digest_of_what_has_a_secret_in_it_is_another_under_another_root_secret() -> None:
    assert Sealer([OLD]).digest(b"x") == Sealer([OLD, NEW]).digest(b"x")
    assert Sealer([OLD]).digest(b"x") != Sealer([NEW]).digest(b"x")
    assert Sealer([OLD]).digest(b"x") != Sealer([OLD]).digest(b"y")
