"""Rates and shares of calls."""

import pytest

from pemba.errors import RateLimited
from pemba.rpc.limits import BURST_SECONDS, MAX_KEYS, Rate, Share


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_key_has_its_burst_and_then_its_rate():
    clock = Clock()
    rate = Rate(10, clock)
    burst = round(10 * BURST_SECONDS)
    assert [rate.take("acme") for _ in range(burst)] == [0.0] * burst
    assert rate.take("acme") == pytest.approx(0.1)
    assert rate.is_out("acme")
    clock.now += 0.1
    assert not rate.is_out("acme")
    assert rate.take("acme") == 0.0
    assert rate.take("acme") == pytest.approx(0.1), "what was refused cost nothing"


def test_one_key_costs_no_other_anything():
    rate = Rate(1, Clock())
    while not rate.take("noisy"):
        pass
    assert rate.take("quiet") == 0.0


def test_what_costs_more_than_a_burst_is_let_through_where_the_key_was_quiet_and_paid_for_after():
    clock = Clock()
    rate = Rate(10, clock)
    assert rate.take("acme", 1000) == 0.0
    assert rate.take("acme") == pytest.approx(100 + 0.1 - BURST_SECONDS)
    clock.now += 100
    assert rate.take("acme", 20) == 0.0


def test_no_rate_is_no_limit():
    rate = Rate(0)
    assert [rate.take("acme", 10**9) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert not rate.is_out("acme")


def test_it_remembers_a_bounded_number_of_keys_and_forgets_the_one_that_was_quiet_for_longest():
    rate = Rate(1, Clock())
    for n in range(MAX_KEYS + 1):
        rate.take(f"key-{n}", 2)
    assert len(rate._even) == MAX_KEYS
    assert rate.take("key-0") == 0.0
    assert rate.take(f"key-{MAX_KEYS}") > 0


def test_a_caller_has_so_many_calls_under_way_and_another_has_its_own():
    share = Share(2)
    with share.one("noisy"), share.one("noisy"):
        with pytest.raises(RateLimited, match="2 calls") as refused, share.one("noisy"):
            pass
        assert refused.value.retry_seconds > 0
        with share.one("quiet"):
            pass
    with share.one("noisy"):
        pass
    assert not share._under_way
