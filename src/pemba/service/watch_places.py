"""How many may watch at one time: of all callers, and of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from pemba.errors import RateLimited
from pemba.model import Caller

SHARE_OF_ONE = 5
"""One caller takes at most a fifth of all places."""
_RETRY_SECONDS = 5.0


class WatchPlaces:
    """A caller is a credential with the user it acts for."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._places_of_one = max(places // SHARE_OF_ONE, 1)
        self._taken: Counter[tuple[str, str | None]] = Counter()

    @contextmanager
    def taken(self, caller: Caller) -> Iterator[None]:
        """Raises RateLimited."""
        who = (caller.principal, caller.acting_user)
        if self._taken[who] >= self._places_of_one:
            raise RateLimited(f"the caller has {self._places_of_one} watches; end one first", _RETRY_SECONDS)
        if self._taken.total() >= self._places:
            raise RateLimited(f"all {self._places} watches of this server are taken", _RETRY_SECONDS)
        self._taken[who] += 1
        try:
            yield
        finally:
            self._taken[who] -= 1
            if not self._taken[who]:
                del self._taken[who]
