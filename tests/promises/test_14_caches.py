"""Promise 14: caches: drop any part of the key, any of the rules beside it, and a test fails.

Which one, stands beside each part and each rule here; those tests themselves lie with what they test.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pemba.authorizer import answering, feed
from pemba.authorizer.decisions import Decided, Decisions
from pemba.authorizer.feed import Feed
from pemba.authorizer.questions import Question
from pemba.spicedb.client import Decision
from tests.integration.authorizer import test_decisions as kept
from tests.integration.authorizer import test_feed as known
from tests.integration.authorizer.conftest import held_loads
from tests.integration.authorizer.test_decisions import own

__all__ = ["held_loads", "own"]

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Dropped:
    """A part or a rule that is dropped by `patch`, the test that fails then, and what that takes beside fixtures."""

    name: str
    patch: Patch
    test: Callable[..., Any]
    given: tuple[tuple[str, object], ...] = ()


def without_part(part: str) -> Patch:
    """A key that says nothing of it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        names = {"resource type": 0, "resource": 1, "permission": 2, "subject type": 3, "subject": 4}
        names["subject relation"] = 5

        def key(question: Question) -> str:
            resource, subject = question.resource, question.subject
            parts = [resource.type, resource.id, question.permission, subject.type, subject.id, subject.relation]
            del parts[names[part]]
            return "|".join(parts)

        monkeypatch.setattr(answering, "key_of", key)

    return patch


def keeping_all(same: Callable[[Decided, Any], bool]) -> Patch:
    """Decisions of which those of a tenant, or of all of them, are given for as long as `same` says."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original = Decisions.at

        def at(self: Decisions, tenant_id: Any, position: Any) -> Decided:
            held = self._tenants.get(tenant_id)
            return held if held is not None and same(held, position) else original(self, tenant_id, position)

        monkeypatch.setattr(Decisions, "at", at)

    return patch


def of_all_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Decisions.at
    monkeypatch.setattr(Decisions, "at", lambda self, _, position: original(self, "any", replace(position, serial=1)))
    keep = Decisions.keep
    monkeypatch.setattr(Decisions, "keep", lambda self, _, *given: keep(self, "any", *given))


def for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Decisions.__init__
    monkeypatch.setattr(Decisions, "__init__", lambda self, limit, _: original(self, limit, math.inf))


def whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "is_lasting", lambda *_: True)


def conditional_as_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = Decisions.keep

    def other(self: Decisions, tenant_id: Any, decided: Decided, key: str, decision: Decision) -> None:
        keep(self, tenant_id, decided, key, Decision.ALLOWED if decision is Decision.ALLOWED else Decision.DENIED)

    monkeypatch.setattr(Decisions, "keep", other)


def late_answers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into whatever is known of the tenant by then."""
    keep = Decisions.keep

    def other(self: Decisions, tenant_id: Any, decided: Decided, key: str, decision: Decision) -> None:
        keep(self, tenant_id, self._tenants.get(tenant_id, decided), key, decision)

    monkeypatch.setattr(Decisions, "keep", other)


def single_and_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "key_at_one_revision", answering.key_of)


def nobody_is_denied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "denied_at_once", lambda *_: None)


def another_schema_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feed, "_position_anew", lambda _: None)


def a_schema_under_way_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = feed._position
    monkeypatch.setattr(
        feed,
        "_position",
        lambda status, delivery, pulse, serial: original(
            status, delivery, replace(pulse, schema_number=pulse.schema_number & ~1), serial
        ),
    )


def another_life_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Feed, "_start_anew", lambda *_: None)


def overtaken_loads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_is_behind", lambda *_: False)


def at_any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Feed._known_pulse

    async def other(self: Feed) -> Any:
        self._bound = math.inf
        return await original(self)

    monkeypatch.setattr(Feed, "_known_pulse", other)


PARTS = ("resource type", "resource", "permission", "subject type", "subject", "subject relation")
DROPPED = (
    *(
        Dropped(
            f"key: {part}",
            without_part(part),
            kept.test_questions_that_differ_in_one_part_have_answers_of_their_own,
            (("part", part),),
        )
        for part in PARTS
    ),
    Dropped("key: tenant", of_all_tenants, kept.test_tenants_share_no_answers),
    Dropped("key: position", keeping_all(lambda *_: True), kept.test_a_decision_is_kept_until_the_position_moves),
    Dropped("key: schema", another_schema_is_nothing, kept.test_no_answer_outlives_its_schema),
    Dropped("key: schema, between two looks", another_schema_is_nothing,
            kept.test_the_answers_under_a_schema_go_with_the_look_that_tells_of_the_next),
    Dropped("key: life", another_life_is_nothing, known.test_in_another_life_nothing_counts_that_was_known,
            (("column", "database_epoch"), ("max_inactive", 0))),
    Dropped("key: one revision", single_and_all_alike,
            kept.test_all_permissions_are_of_one_revision_although_single_answers_are_kept),
    Dropped("greatest age", for_ever, kept.test_a_kept_decision_is_no_older_than_its_greatest_age),
    *(
        Dropped(f"not {how.__name__}", whatever_is_asked,
                kept.test_such_a_question_neither_gets_a_kept_answer_nor_is_its_own_kept, (("how", how),))
        for how in (kept.by_minimal_latency, kept.fully_consistent, kept.at_another_tenants_token)
    ),
    Dropped("not with a context", whatever_is_asked, kept.test_what_a_caveat_decides_is_asked_each_time),
    Dropped("not what is conditional", conditional_as_denied, kept.test_what_a_caveat_decides_is_asked_each_time),
    Dropped("not what comes late", late_answers_too,
            kept.test_an_answer_that_comes_after_the_position_moved_is_not_kept),
    Dropped("suspensions first", nobody_is_denied_at_once,
            kept.test_a_suspension_denies_whatever_is_kept_and_the_kept_answer_stands_after_it),
    Dropped("not under a schema under way", a_schema_under_way_is_nothing,
            known.test_while_a_schema_is_applied_no_revision_is_fresh_and_no_answer_lasts),
    Dropped("no load that was overtaken", overtaken_loads_too,
            known.test_a_load_that_a_look_has_overtaken_is_not_remembered, (("overtake", known.by_a_delivery),)),
    Dropped("the feed's greatest age", at_any_age,
            known.test_what_is_known_is_good_for_as_long_as_an_outage_may_last_and_then_fails),
)  # fmt: skip


@pytest.fixture
def fixtures(request: pytest.FixtureRequest) -> dict[str, object]:
    """Those that the test takes which is to fail."""
    dropped = request.node.callspec.params["dropped"]
    wanted = inspect.signature(dropped.test).parameters
    return {name: request.getfixturevalue(name) for name in wanted if name not in dict(dropped.given)}


EVERY_THIRD = 3
"""In the short run; all of them in the long one."""


@pytest.mark.parametrize(
    "dropped",
    [
        pytest.param(each, id=each.name, marks=[] if n % EVERY_THIRD == 0 else [pytest.mark.long])
        for n, each in enumerate(DROPPED)
    ],
)
async def test_dropping_it_makes_a_test_fail(
    fixtures: dict[str, object], monkeypatch: pytest.MonkeyPatch, dropped: Dropped
) -> None:
    dropped.patch(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await dropped.test(**fixtures, **dict(dropped.given))
