"""What changes of users' statuses, and deletions of tenants, leave to do: ordinary mutations, which any number of
relays may carry out."""

from __future__ import annotations

from typing import Protocol

from pemba.relay.every_second import every_second
from pemba.telemetry import Event


class Jobs(Protocol):
    """Users', or tenants'."""

    async def run_once(self) -> bool:
        """Take one step; False where there is nothing to do, or somebody else is doing it."""


class Maintenance:
    """Carries out jobs of one kind, step after step."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def run_once(self) -> int:
        """Take steps until there is none to take; how many they were."""
        steps = 0
        while await self._jobs.run_once():
            steps += 1
        return steps

    async def run(self) -> None:
        """Until cancelled: every second, whatever fails; a step that is cut off changed nothing."""
        await every_second(self.run_once, Event.MAINTENANCE_FAILED)
