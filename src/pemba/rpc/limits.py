"""How many calls a caller, a tenant and a peer may make, in bounded memory.

Rates are kept as in GCRA, the generic cell rate algorithm of ATM (ITU-T I.371): of each key one moment, that at which
all it was let through would have come evenly.  A key whose moment has passed is as good as unknown, so what is
forgotten first has nothing to say.  The libraries that limit rates keep every key they ever saw, or wait instead of
refusing.

Calls under way are counted as well: no caller has more than half of those that the server takes, whatever the rates.
Peers are counted by what they come with: an address from which too many unknown keys came has no further key looked up
for a while; callers whose keys are known are let in from there as ever, since a proxy has one address for all.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from pemba.errors import RateLimited

MAX_KEYS = 10_000
_ROUNDING = 1e-9
BURST_SECONDS = 2.0
"""A key that was quiet may have so many seconds' worth at once."""


class Rate:
    """So many calls a second for each key; 0: no limit."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._even: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, cost: int = 1) -> float:
        """Let it through (0.0), or the seconds after which it may be tried again.

        More than a burst at once is let through where the key was quiet: else it would never be.
        """
        if not self._interval:
            return 0.0
        now = self._clock()
        wait = self._wait(key, cost, now)
        if wait:
            return wait
        self._even[key] = max(self._even.get(key, now), now) + cost * self._interval
        self._even.move_to_end(key)
        if len(self._even) > MAX_KEYS:
            self._even.popitem(last=False)
        return 0.0

    def is_out(self, key: str) -> bool:
        """Whether `take` would refuse; takes nothing."""
        return bool(self._interval) and self._wait(key, 1, self._clock()) > 0

    def _wait(self, key: str, cost: int, now: float) -> float:
        ahead = max(self._even.get(key, now) - now, 0.0)
        wait = ahead + min(cost * self._interval, BURST_SECONDS) - BURST_SECONDS
        return wait if wait > _ROUNDING else 0.0


class Share:
    """Calls under way of each key, at most `most` at one time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: Counter[str] = Counter()

    @contextmanager
    def one(self, key: str) -> Iterator[None]:
        """A call, from its admission to its end.  Raises RateLimited."""
        if self._under_way[key] >= self._most:
            raise RateLimited(f"{self._most} calls of this caller are under way", 0.1)
        self._under_way[key] += 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]


class Admission:
    """Lets calls in, by their peer before it is known whose they are, then by caller and by tenant."""

    def __init__(
        self,
        *,
        max_calls_of_a_caller: int,
        caller_calls_per_second: float = 0,
        tenant_calls_per_second: float = 0,
        peer_strangers_per_second: float = 0,
    ) -> None:
        self._share = Share(max_calls_of_a_caller)
        self._callers = Rate(caller_calls_per_second)
        self._tenants = Rate(tenant_calls_per_second)
        self._strangers = Rate(peer_strangers_per_second)

    def require_known_peer(self, peer: str) -> None:
        """Raises RateLimited where too many unknown keys came from there."""
        if self._strangers.is_out(_address(peer)):
            raise RateLimited("too many unknown keys came from this address", 1.0)

    def note_stranger(self, peer: str) -> None:
        """An unknown key came from there."""
        self._strangers.take(_address(peer))

    def one_of(self, principal: str) -> AbstractContextManager[None]:
        """A call of this caller, until it ends.  Raises RateLimited."""
        return self._share.one(principal)

    def take(self, principal: str, tenant_id: str, cost: int) -> None:
        """Count a call, or as many as a batch holds.  Raises RateLimited with the time after which to come back."""
        for rate, key, whose in ((self._callers, principal, "caller"), (self._tenants, tenant_id, "tenant")):
            wait = rate.take(key, cost) if key else 0.0
            if wait:
                raise RateLimited(f"more calls of this {whose} than it may make", wait)


def _address(peer: str) -> str:
    """`ipv4:192.0.2.1:43210` without the port; a socket's as it is."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
