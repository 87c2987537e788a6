"""The options that commands share, and the decorators that add them to a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Concatenate, ParamSpec, get_type_hints

import typer

from pemba.cli.call_options import CallOptions
from pemba.cli.failure import reporting
from pemba.cli.output import Output
from pemba.cli.usage import names_by_field

if TYPE_CHECKING:
    from pemba.cli.connection import Connection

P = ParamSpec("P")

OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How the answer is printed.")]
TenantOption = Annotated[
    str, typer.Option("--tenant", "-t", help="The tenant, by slug or id; PEMBA_TENANT where not given.")
]
EtagOption = Annotated[
    str, typer.Option("--etag", help="Change it only if this is still its etag (see --output json).")
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="How many to list at most.")]


_OF_EVERY_CALL = ("output", "endpoint", "on_behalf_of", "timeout")
_OF_CHANGES = (*_OF_EVERY_CALL, "request_id", "validate_only")

Command = Callable[Concatenate["Connection", P], None]


def reads(app: typer.Typer, name: str) -> Callable[[Command[P]], Command[P]]:
    """Make a function of (connection, its own arguments) the command `name`, which reads."""

    def register(function: Command[P]) -> Command[P]:
        app.command(name)(with_call_options(function, _OF_EVERY_CALL))
        return function

    return register


def changes(app: typer.Typer, name: str) -> Callable[[Command[P]], Command[P]]:
    """Make a function of (connection, its own arguments) the command `name`, which changes something."""

    def register(function: Command[P]) -> Command[P]:
        app.command(name)(with_call_options(function, _OF_CHANGES))
        return function

    return register


def with_call_options(function: Command[P], shared: tuple[str, ...] = _OF_EVERY_CALL) -> Callable[..., None]:
    """`function` as Typer wants it: it opens the connection, and has the `shared` options besides its own."""
    # Commands import Connection for type checkers alone: with it comes gRPC, and --help would wait for that.
    annotations = get_type_hints(function, localns={"Connection": object}, include_extras=True)
    own = [p.replace(annotation=annotations[p.name]) for p in list(inspect.signature(function).parameters.values())[1:]]
    offered = inspect.signature(CallOptions, eval_str=True).parameters

    def run(context: typer.Context, **values: object) -> None:
        options = CallOptions(**{name: values.pop(name) for name in shared})  # type: ignore[arg-type]  # typer checked them
        with reporting(options.output, names_by_field(context.command)):
            from pemba.cli.connection import connect

            with connect(options) as connection:
                function(connection, **values)  # type: ignore[arg-type, call-arg]  # what is left are its own

    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters = [context, *own, *(offered[name] for name in shared)]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    # Typer builds a command from the signature, so the shared options are written into it.
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__doc__ = function.__doc__
    return run
