"""What a load came to, a row of the table, and whether its goals are met: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One load: `rate` a second of what was answered OK (the work says of what), times in milliseconds."""

    count: int
    rate: float
    p50: float
    p95: float
    p99: float
    statuses: Mapping[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> dict[str, int]:
        return {status: count for status, count in self.statuses.items() if status != "OK"}


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and its bound; `at_least` says which way."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def text(self) -> str:
        return f"{self.name} {'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One work: its rounds on each side, in the order they are shown in; the first side is Pemba."""

    work: str
    what: str
    sides: Mapping[str, Sequence[Figures]]
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()
    """What spoils the row: statuses that are not OK, answers that are not what the records say."""


def summary(rounds: Sequence[Figures]) -> Figures:
    """The medians of several rounds, counts and statuses summed."""
    statuses: dict[str, int] = {}
    for each in rounds:
        for status, count in each.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    return Figures(
        count=sum(each.count for each in rounds),
        rate=median(each.rate for each in rounds),
        p50=median(each.p50 for each in rounds),
        p95=median(each.p95 for each in rounds),
        p99=median(each.p99 for each in rounds),
        statuses=statuses,
    )


def ratio(over: Sequence[Figures], under: Sequence[Figures], name: str = "rate") -> float:
    """Of the medians; 0 where there is nothing to divide by."""
    below: float = getattr(summary(under), name)
    above: float = getattr(summary(over), name)
    return above / below if below else 0.0


def spread(rounds: Sequence[Figures]) -> float:
    """How far the rates of the rounds lie apart, as a share of their median."""
    rates = [each.rate for each in rounds]
    return (max(rates) - min(rates)) / median(rates) if median(rates) else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0


def of_samples(milliseconds: Sequence[float], seconds: float) -> Figures:
    """Figures of times that were taken one by one within `seconds`."""
    return Figures(
        count=len(milliseconds),
        rate=len(milliseconds) / seconds,
        p50=percentile(milliseconds, 0.5),
        p95=percentile(milliseconds, 0.95),
        p99=percentile(milliseconds, 0.99),
        statuses={"OK": len(milliseconds)},
    )


def refusals(sides: Mapping[str, Sequence[Figures]]) -> list[str]:
    """A problem for every side that had a status besides OK."""
    return [f"{side}: {status} x {count}" for side, rounds in sides.items()
            for status, count in summary(rounds).refused.items()]  # fmt: skip
