"""What arguments are called in help and in complaints, and what a complaint says that they take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

HELP_NAMES = ["-h", "--help"]


def name_parameters(command: Any) -> None:
    """Arguments in capitals, and flags without the value that they do not take, in a command and all below it."""
    help_option = command.get_help_option(typer.Context(command, help_option_names=HELP_NAMES))
    for parameter in [*command.params, help_option]:
        if isinstance(parameter, TyperArgument) and parameter.metavar is None:
            parameter.metavar = str(parameter.name).strip("_").upper()
        elif isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    for below in command.commands.values() if isinstance(command, TyperGroup) else ():
        name_parameters(below)


def complaint(error: typer.TyperException) -> str:
    """A usage error as a line that names the argument, what it takes, and where more stands."""
    parameter = getattr(error, "param", None)
    if parameter is None:
        return str(getattr(error, "message", error))
    takes = str(parameter.help).rstrip(".")
    if not error.message:
        return f"{name_of(parameter)} is missing: {_form(parameter)}{takes[0].lower()}{takes[1:]}"
    message = error.message.removeprefix("Value error, ").rstrip(".")
    return f"{name_of(parameter)}: {message[0].lower()}{message[1:]} ({takes})"


def name_of(parameter: Any) -> str:
    """`ROLE`, `--limit`."""
    return str(max(parameter.opts, key=len) if isinstance(parameter, TyperOption) else parameter.display_name_raw)


def _form(parameter: Any) -> str:
    """`user:ID, `; an argument's stands in its help."""
    return f"{parameter.metavar}, " if isinstance(parameter, TyperOption) and parameter.metavar else ""


def names_by_field(command: Any) -> dict[str, str]:
    """What a command calls its parameters, by the names that fields of requests have."""
    return {str(parameter.name).strip("_"): name_of(parameter) for parameter in command.params}


def in_arguments(message: str, fields: Iterable[str], names: Mapping[str, str]) -> str:
    """A refusal that names fields of the request (`consistency.at_least_as_fresh: ...`), by the command's arguments."""
    for field in fields:
        message = message.replace(f"{field}: ", f"{_argument(field, names)}: ", 1)
    return message


def _argument(field: str, names: Mapping[str, str]) -> str:
    first, _, last = field.partition(".")
    likely = (field, first, last, field.removesuffix("_id"), field.rpartition("_")[2])
    known = (name for name in likely if name in names)
    return names.get(next(known, ""), field)
