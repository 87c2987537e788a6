"""Calls of an import: what is made again, and what is not."""

import pytest

from pemba.cli.failure import CallFailed, Problem
from pemba.cli.importing import calls


class Answering:
    """A connection whose calls fail in these ways, and then succeed."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = list(problems)

    def read(self, _rpc: object, request: object) -> object:
        if self.problems:
            raise CallFailed(self.problems.pop(0))
        return request


@pytest.fixture
def paused(monkeypatch):
    """The seconds that were waited."""
    seconds = []
    monkeypatch.setattr(calls.time, "sleep", seconds.append)
    return seconds


def test_what_may_pass_is_tried_again_after_as_long_as_the_server_says(paused):
    problems = [
        Problem("UNAVAILABLE", ""),
        Problem("DEADLINE_EXCEEDED", ""),
        Problem("RESOURCE_EXHAUSTED", "", retry_seconds=3),
        Problem("ABORTED", "", reason="CONCURRENT_UPDATE"),
    ]
    assert calls.call(Answering(*problems), None, "answer") == "answer"
    assert paused == [0.25, 0.5, 3, 2.0]


@pytest.mark.parametrize("problem", [Problem("ABORTED", "", reason="ETAG_MISMATCH"), Problem("NOT_FOUND", "")])
def test_what_does_not_pass_is_told_at_once(paused, problem):
    with pytest.raises(CallFailed):
        calls.call(Answering(problem), None, "answer")
    assert paused == []


def test_it_ends(paused):
    with pytest.raises(CallFailed):
        calls.call(Answering(*[Problem("UNAVAILABLE", "")] * calls.TRIES), None, "answer")
    assert len(paused) == calls.TRIES - 1
