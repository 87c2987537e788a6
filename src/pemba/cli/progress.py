"""Progress of long work on stderr: a spinner on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """What goes on, for a person; `command` begins the lines that say what went wrong."""

    def __init__(self, command: str) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._command = command
        self._status: Any = None
        self._last_line = 0.0

    def step(self, text: str) -> None:
        """A step begins."""
        if self.console.is_terminal:
            self._spin(text)
        else:
            self.console.print(text)

    def progress(self, text: str) -> None:
        """The step moves on; may come often."""
        if self.console.is_terminal:
            self._spin(text)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.console.print(text)

    def problem(self, text: str) -> None:
        """Something went wrong, in several lines perhaps."""
        self.console.print(f"{self._command}: {text}")

    def end(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _spin(self, text: str) -> None:
        if self._status is None:
            self._status = self.console.status(text)
            self._status.start()
        self._status.update(text)
