"""`pemba`: the table of contents of the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.core import TyperGroup

from pemba.cli import (
    audit,
    bench,
    check,
    db,
    demo,
    dev,
    doctor,
    group,
    import_,
    invitation,
    key,
    lookup,
    member,
    outbox,
    process,
    reconcile,
    repair,
    schema,
    settings,
    share,
    tenant,
    user,
    watch,
    workspace,
)
from pemba.cli.failure import Problem, report
from pemba.cli.options import with_call_options
from pemba.cli.output import Output
from pemba.cli.usage import HELP_NAMES, complaint, name_parameters

CONTENTS = (
    "dev",
    "demo",
    "serve",
    "relay",
    "db",
    "schema",
    "tenant",
    "workspace",
    "member",
    "group",
    "share",
    "settings",
    "user",
    "key",
    "invitation",
    "check",
    "lookup",
    "watch",
    "audit",
    "outbox",
    "reconcile",
    "import",
    "repair",
    "doctor",
    "bench",
)
RUN, SET_UP, RECORDS, ASK, OPERATE = "Run", "Set up", "Records", "Ask", "Operate"


class TableOfContents(TyperGroup):
    """Commands in the order of CONTENTS; by itself Typer lists every group after every command."""

    def list_commands(self, _: object) -> list[str]:
        return sorted(self.commands, key=CONTENTS.index)


app = typer.Typer(
    name="pemba",
    cls=TableOfContents,
    help="Authorization for other services: tenants, workspaces, members, and who may do what.",
    epilog="Exit codes: 0 done (a check: ALLOWED), 1 the answer is no, 2 wrong usage or settings, 3 it failed.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables may show secrets
    context_settings={"help_option_names": HELP_NAMES},
)
app.command("dev", rich_help_panel=RUN)(dev.dev)
app.command("demo", rich_help_panel=RUN)(with_call_options(demo.demo, ("output", "endpoint", "timeout")))
app.command("serve", rich_help_panel=RUN)(process.serve)
app.command("relay", rich_help_panel=RUN)(process.relay)
app.add_typer(db.app, rich_help_panel=SET_UP)
app.add_typer(schema.app, rich_help_panel=SET_UP)
app.add_typer(tenant.app, rich_help_panel=RECORDS)
app.add_typer(workspace.app, rich_help_panel=RECORDS)
app.add_typer(member.app, rich_help_panel=RECORDS)
app.add_typer(group.app, rich_help_panel=RECORDS)
app.add_typer(share.app, rich_help_panel=RECORDS)
app.add_typer(settings.app, rich_help_panel=RECORDS)
app.add_typer(user.app, rich_help_panel=RECORDS)
app.add_typer(key.app, rich_help_panel=RECORDS)
app.add_typer(invitation.app, rich_help_panel=RECORDS)
app.command("check", rich_help_panel=ASK)(with_call_options(check.check))
app.add_typer(lookup.app, rich_help_panel=ASK)
app.command("watch", rich_help_panel=ASK)(with_call_options(watch.watch, ("output", "endpoint", "on_behalf_of")))
app.add_typer(audit.app, rich_help_panel=OPERATE)
app.add_typer(outbox.app, rich_help_panel=OPERATE)
app.command("reconcile", rich_help_panel=OPERATE)(with_call_options(reconcile.reconcile, ("output", "endpoint")))
app.command("import", rich_help_panel=OPERATE)(with_call_options(import_.import_, ("output", "endpoint", "timeout")))
app.command("repair", rich_help_panel=OPERATE)(repair.repair)
app.command("doctor", rich_help_panel=OPERATE)(doctor.doctor)
app.command("bench", rich_help_panel=OPERATE)(bench.bench)


def main() -> None:
    """Run the command line; a usage error is one line that names the argument, and exit code 2."""
    command = typer.main.get_command(app)
    name_parameters(command)
    try:
        sys.exit(command(prog_name="pemba", standalone_mode=False) or 0)
    except typer.TyperException as error:
        if error.format_message():  # none where the help was what there is to say
            output = _output_asked_for(sys.argv)
            see = f".  {_where_help_is(error)}" if output is Output.TABLE else ""
            report(Problem("USAGE", f"{complaint(error).rstrip('.')}{see}"), output)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # or the interpreter would complain about the pipe once more on its way out
        sys.exit(0)


def _output_asked_for(arguments: Sequence[str]) -> Output:
    """What a command line that could not be read says about the output."""
    asked = " ".join(arguments).replace("=", " ").replace("-o ", "--output ")
    return Output.JSON if f"--output {Output.JSON}" in asked else Output.TABLE


def _where_help_is(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"See {context.command_path if context else 'pemba'} --help."
