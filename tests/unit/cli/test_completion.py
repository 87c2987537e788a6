"""Completion in a shell, as `pemba --install-completion` sets it up."""

import os
import subprocess
import sys

import pytest

from pemba.cli.main import CONTENTS


def complete(words):
    """What bash is offered for the last word."""
    return pemba(_PEMBA_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))).split()


def pemba(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "pemba", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_and_their_own_commands_and_options_are_offered():
    assert complete("pemba ") == list(CONTENTS)
    assert complete("pemba workspace unar") == ["unarchive"]
    assert "--at-least-as-fresh" in complete("pemba check --at")


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_installing_it_leaves_a_script_that_the_shell_reads(tmp_path, shell, file):
    pemba("--install-completion", shell, HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (tmp_path / file).exists()
    scripts = [each for each in tmp_path.rglob("*pemba*") if each.is_file()]
    assert ["_PEMBA_COMPLETE" in script.read_text() for script in scripts] == [True]
