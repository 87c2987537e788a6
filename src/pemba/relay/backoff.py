"""How long to pause after a failure: full jitter between 50 ms and a ceiling that doubles up to 30 s.

The form is "full jitter" of the AWS Architecture Blog's Exponential Backoff And Jitter.
"""

from __future__ import annotations

import random

MIN_SECONDS = 0.05
MAX_SECONDS = 30.0


class Backoff:
    """Counts failures in a row; a success ends the row."""

    def __init__(self, max_seconds: float = MAX_SECONDS) -> None:
        self._max_seconds = max_seconds
        self.failures = 0

    def failed(self) -> float:
        """Seconds to pause now."""
        ceiling = min(self._max_seconds, MIN_SECONDS * 2 ** min(self.failures, 20))
        self.failures += 1
        return random.uniform(MIN_SECONDS, max(MIN_SECONDS, ceiling))  # noqa: S311 - jitter, no secret

    def succeeded(self) -> None:
        self.failures = 0
