"""What went wrong, for a person or for a program, and the exit code that goes with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum

import typer

from pemba.cli.output import Output
from pemba.cli.usage import complaint, in_arguments
from pemba.errors import ConfigError, FieldViolation, InvalidRequest, PembaError, RateLimited, Unavailable

_NO_NAMES: Mapping[str, str] = {}


class ExitCode(IntEnum):
    """What `pemba` exits with; every command keeps to it."""

    OK = 0
    NO = 1
    """The answer is no: a check that is not ALLOWED, a schema that is not as it should be."""
    USAGE = 2
    """An argument or a setting is wrong or missing; nothing was tried."""
    FAILED = 3
    """It was tried and did not succeed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One failure; `code` is gRPC's name of it (USAGE for what never left this process)."""

    code: str
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: Sequence[FieldViolation] = ()
    retry_seconds: float | None = None

    @property
    def line(self) -> str:
        reason = f" ({self.reason})" if self.reason not in ("", "INVALID_FIELD", "NOT_FOUND", "INTERNAL") else ""
        retry = f"; retry in {self.retry_seconds:g} s" if self.retry_seconds is not None else ""
        return f"error: {self.message}{reason}{retry}"

    def said_of(self, names: Mapping[str, str]) -> Problem:
        """With the command's arguments named in the place of fields."""
        fields = [violation.field for violation in self.violations]
        return replace(self, message=in_arguments(self.message, fields, names))


class CallFailed(Exception):
    """A call to Pemba did not succeed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@contextmanager
def reporting(output: Output = Output.TABLE, names: Mapping[str, str] = _NO_NAMES) -> Generator[None]:
    """Turn the failures that are expected into one line (or JSON) on stderr and an exit code.

    `names` is what the command calls its arguments, by the names of fields.
    """
    try:
        yield
    except typer.TyperException as error:
        report(Problem("USAGE", complaint(error)), output)
        raise typer.Exit(ExitCode.USAGE) from None
    except ConfigError as error:
        report(Problem("USAGE", "; ".join(str(error).splitlines())), output)
        raise typer.Exit(ExitCode.USAGE) from None
    except CallFailed as error:
        report(error.problem if output is Output.JSON else error.problem.said_of(names), output)
        raise typer.Exit(ExitCode.FAILED) from None
    except PembaError as error:
        report(_of_domain_error(error), output)
        raise typer.Exit(ExitCode.FAILED) from None


def report(problem: Problem, output: Output) -> None:
    """Print `problem` to stderr."""
    text = json.dumps({"error": asdict(problem)}) if output is Output.JSON else problem.line
    print(text, file=sys.stderr)


def _of_domain_error(error: PembaError) -> Problem:
    """Operators' commands work on PostgreSQL and SpiceDB themselves: no gRPC status stands between."""
    return Problem(
        code=type(error).__name__,
        message=error.message,
        reason=error.reason,
        metadata=error.metadata,
        violations=error.violations if isinstance(error, InvalidRequest) else (),
        retry_seconds=error.retry_seconds if isinstance(error, Unavailable | RateLimited) else None,
    )
