"""Works that ask: the same load on Pemba and on SpiceDB, in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from pemba.bench.dataset import Question
from pemba.bench.figures import Figures, Goal, Row, ratio, refusals
from pemba.bench.mutations import going_on
from pemba.bench.sides import Asked, Side, disagreements
from pemba.bench.stage import Bench
from pemba.model import Permission

_ZIPF_TURN = 2.5
"""Times as long as others."""
_WARM_UP_CONCURRENCY = 16
_MOST_COLD_A_SECOND = 2500
_DRAWS_A_SECOND = 4000
_MOST_DRAWS = 15_000
_MOST_PAGES_A_SECOND = 60
_SAMPLE = 40
_MOST_PROBLEMS = 5


async def hot(bench: Bench) -> Row:
    """One question again and again, one at a time."""
    last = bench.loaded.dataset.tenants[0].workspaces - 1
    one = [Question(0, last, Permission.VIEW, bench.loaded.dataset.tenants[0].users[0])]
    sides = bench.sides.check, bench.sides.direct_check, bench.sides.fast_check
    figures, problems = await _in_turns(bench, sides, lambda _: [one], 1)
    pemba, direct, *_ = figures.values()
    goal = Goal("p50 / SpiceDB's", ratio(pemba, direct, "p50"), 1.15)
    return Row(
        work="hot", what="one check, again and again, concurrency 1", sides=figures, goals=[goal], problems=problems
    )


async def cold(bench: Bench, concurrency: int) -> Row:
    """Different questions, uniform over the data set, each asked once."""
    many = min(int(bench.seconds * _MOST_COLD_A_SECOND), bench.questions.share)
    sides = bench.sides.check, bench.sides.direct_check
    figures, problems = await _in_turns(bench, sides, lambda _: [[q] for q in bench.questions.take(many)], concurrency)
    pemba, direct = figures.values()
    notes = ["some were asked twice"] if any(f.count > many for f in [*pemba, *direct]) else []
    return Row(
        work=f"cold-{concurrency}",
        what=f"different checks, uniform, concurrency {concurrency}",
        sides=figures,
        goals=[Goal("rate / SpiceDB's", ratio(pemba, direct), 0.95, at_least=True)],
        problems=problems,
        notes=notes,
    )


async def zipf(bench: Bench, concurrency: int) -> Row:
    """Draws of 5,000 questions by Zipf's law, and at concurrency 16 also of SpiceDB at its fastest."""
    sides = (bench.sides.check, bench.sides.direct_check, *([bench.sides.fast_check] if concurrency == 16 else []))
    figures, problems = await _zipf_in_turns(bench, sides, concurrency)
    pemba, direct, *_ = figures.values()
    return Row(
        work=f"zipf-{concurrency}",
        what=f"checks by Zipf's law over 5,000 questions, concurrency {concurrency}",
        sides=figures,
        goals=[
            Goal("rate / SpiceDB's", ratio(pemba, direct), 6, at_least=True),
            Goal("p99 / SpiceDB's", ratio(pemba, direct, "p99"), 0.2),
        ],
        problems=problems,
    )


async def zipf_while_writing(bench: Bench, concurrency: int, rate: int) -> Row:
    """The same with mutations meanwhile, on both sides' turns."""
    sides = bench.sides.check, bench.sides.direct_check
    mutations: list[Figures] = []

    def meanwhile() -> AbstractAsyncContextManager[None]:
        return going_on(bench.many, rate, bench.seconds * _ZIPF_TURN, mutations)

    figures, problems = await _zipf_in_turns(bench, sides, concurrency, meanwhile)
    pemba, direct = figures.values()
    return Row(
        work=f"zipf-{concurrency}-writes",
        what=f"the same at concurrency {concurrency} with {rate} mutations a second over all tenants",
        sides={**figures, "mutations meanwhile": mutations},
        goals=[Goal("rate / SpiceDB's", ratio(pemba, direct), 4, at_least=True)],
        notes=["how old the answers are is not measured"],
        problems=[*refusals({"mutations meanwhile": mutations}), *problems],
    )


async def _zipf_in_turns(
    bench: Bench,
    sides: Sequence[Side],
    concurrency: int,
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
) -> tuple[dict[str, list[Figures]], list[str]]:
    """Of what is asked for long: each side is warm, and a turn as long as SpiceDB's cache lives."""
    seconds = bench.seconds * _ZIPF_TURN
    for side in sides:
        if side.name not in bench.zipf:
            draws = bench.questions.zipf(min(_MOST_DRAWS, int(seconds * _DRAWS_A_SECOND)))
            bench.zipf[side.name] = [[question] for question in draws]
            requests = [side.request(asked) for asked in bench.zipf[side.name]]
            await bench.ghz.run(side.target, requests, seconds=seconds, concurrency=_WARM_UP_CONCURRENCY)
    return await _in_turns(bench, sides, lambda side: bench.zipf[side.name], concurrency, meanwhile, seconds)


async def page(bench: Bench) -> Row:
    """One user's permission on every workspace of a tenant, at once and one by one, all of it cold."""
    many = max(1, min(int(bench.seconds * _MOST_PAGES_A_SECOND), bench.questions.page_share))
    at_once = (bench.sides.page, bench.sides.direct_page)
    one_by_one = (bench.sides.check, bench.sides.direct_check)
    pages, problems = await _in_turns(bench, at_once, lambda _: bench.questions.pages(many), 1)
    singly, more = await _in_turns(
        bench, one_by_one, lambda _: [[question] for each in bench.questions.pages(many) for question in each], 1
    )
    size = bench.loaded.dataset.tenants[0].workspaces - 1
    sides: dict[str, Sequence[Figures]] = {
        **pages, **{f"{name}, {size} checks": [_pages_of(f, size) for f in rounds] for name, rounds in singly.items()}
    }  # fmt: skip
    faster = ratio(pages["pemba"], sides[f"pemba, {size} checks"])
    what = f"page loads: one user, {size} workspaces, cold; as one batch, and as {size} checks one after the other"
    return Row(
        work="page",
        what=what,
        sides=sides,
        problems=[*problems, *more],
        goals=[Goal(f"pages / those of {size} checks", faster, 3, at_least=True)],
        notes=[f"times of {size} checks are {size} times those of one"],
    )


def _pages_of(single: Figures, size: int) -> Figures:
    return Figures(
        count=single.count // size,
        rate=single.rate / size,
        p50=single.p50 * size,
        p95=single.p95 * size,
        p99=single.p99 * size,
        statuses=single.statuses,
    )


async def _in_turns(
    bench: Bench,
    sides: Sequence[Side],
    draw: Callable[[Side], Sequence[Asked]],
    concurrency: int,
    meanwhile: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    seconds: float | None = None,
) -> tuple[dict[str, list[Figures]], list[str]]:
    """Figures by side, and what spoils them."""
    figures: dict[str, list[Figures]] = {side.name: [] for side in sides}
    problems = [line for side in sides for line in await _wrong(bench, side, draw(side))]
    for side in turns(sides, bench.rounds):
        asked = draw(side)
        requests = [side.request(each) for each in asked]
        async with meanwhile():
            load = bench.ghz.run(side.target, requests, seconds=seconds or bench.seconds, concurrency=concurrency)
            figures[side.name].append(await load)
        problems += await _wrong(bench, side, asked)
    return figures, [*refusals(figures), *problems[:_MOST_PROBLEMS]]


async def _wrong(bench: Bench, side: Side, asked: Sequence[Asked]) -> list[str]:
    step = max(1, len(asked) // _SAMPLE)
    return await disagreements(bench.loaded, side, asked[::step])


def turns(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    """A B, B A, A B: so what drifts within the run falls on both."""
    for number in range(rounds):
        yield from sides if number % 2 == 0 else reversed(sides)
