"""The documents know what the code knows."""

import re
import runpy
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pemba import config
from pemba.cli.failure import ExitCode
from pemba.cli.main import CONTENTS
from tests.documents import LANGUAGES, SESSIONS, SHOWS_OUTPUT, Block, Step, blocks_of, excerpts_of, matches, steps_of

ROOT = Path(__file__).parents[2]
SETTINGS = (ROOT / "docs/settings.md").read_text()
GENERATE = runpy.run_path(str(ROOT / "docs/generate.py"))
KINDS = [kind for kind in vars(config).values() if isinstance(kind, type) and issubclass(kind, config.Settings)]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_settings_are_as_make_docs_writes_them():
    assert GENERATE["settings_text"]() == SETTINGS, "run `make docs`"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_is_documented_with_what_it_is_for(kind):
    names = {name for name, field in kind.model_fields.items() if field.validation_alias is None}
    rows = {name: re.search(rf"^\|.*`PEMBA_{name.upper()}`.*$", SETTINGS, re.MULTILINE) for name in names}
    assert [name for name, row in rows.items() if row is None or not row[0].split("|")[3].strip()] == []


def test_a_default_of_the_settings_is_shown():
    assert "| `PEMBA_RELAY_POLL_MIN_SECONDS` | 0.05 | how often" in SETTINGS


def test_every_command_is_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert [
        command for command in CONTENTS if f"`{command}`" not in changelog and f"`{command} " not in changelog
    ] == []


def test_every_exit_code_is_in_the_readme():
    documented = re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert documented == [str(code.value) for code in ExitCode]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def complaints(document: str, text: str) -> list[str]:
    """What of a document's blocks no test runs."""
    blocks = blocks_of(text)
    fences = len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE))
    found = [] if fences == 2 * len(blocks) else ["a fence is indented, of another kind or not closed"]
    for before, block in pairwise([Block(0, "", ""), *blocks]):
        if block.language not in LANGUAGES:
            found.append(f"line {block.line}: nothing runs {block.language!r}")
        elif document not in SESSIONS:
            found.append(f"line {block.line}: the document is not among SESSIONS")
        elif block.language == SHOWS_OUTPUT and before.language not in ("sh", "python"):
            found.append(f"line {block.line}: shows the output of nothing")
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_of_every_document_is_run_by_a_test(document):
    assert complaints(document, (ROOT / document).read_text()) == []


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("README.md", "```yaml\na: 1\n```\n"),
        ("README.md", "```\npemba --help\n```\n"),
        ("README.md", "```text\nALLOWED\n```\n"),
        ("README.md", "```console\n$ true\n```\n```text\nALLOWED\n```\n"),
        ("README.md", "  ```sh\n  true\n  ```\n"),
        ("docs/other.md", "```sh\ntrue\n```\n"),
    ],
)
def test_a_block_that_no_test_runs_is_found(document, text):
    assert len(complaints(document, text)) == 1
    assert complaints("README.md", "```sh\ntrue\n```\n```text\n```\n") == []


def test_commands_are_told_from_what_they_print():
    console = Block(1, "console", "$ true\n$ echo a; echo b\na\nb\n")
    sh, text = Block(9, "sh", "echo a\n"), Block(12, "text", "a\n")
    assert steps_of([console, sh, text, sh]) == [
        Step(1, "true\n", ""),
        Step(2, "echo a; echo b\n", "a\nb\n"),
        Step(9, "echo a\n", "a\n"),
        Step(9, "echo a\n", ""),
    ]
    assert steps_of([Block(1, "sh", "make run ARGS=--demo\nmake test  # lint\n")]) == []
    assert len(steps_of([Block(1, "sh", "make run\npemba tenant list\n")])) == 1


def test_the_words_of_a_line_count_and_its_spaces_do_not():
    assert matches("ID      NAME\nws_...  a b\n", "ID     NAME   \nws_01h a  b\n")
    assert matches("a\n...\nb\n", "a\nx\ny\nb\n")
    assert not matches("ALLOWED\n", "DENIED\n")
    assert not matches("ALLOWED\n", "ALLOWED\nALLOWED\n")
    assert not matches("", "ALLOWED\n")


@pytest.mark.parametrize("document", SESSIONS)
def test_python_without_its_output_is_of_an_example_that_the_document_runs(document):
    blocks = blocks_of((ROOT / document).read_text())
    commands = "".join(step.commands for step in steps_of(blocks))
    ran = "".join((ROOT / path).read_text() for path in re.findall(r"^python (examples/\S+)", commands, re.MULTILINE))
    assert [excerpt for excerpt in excerpts_of(blocks) if excerpt not in ran] == []


@pytest.mark.parametrize("drawing", sorted(ROOT.glob("docs/*.svg")), ids=lambda drawing: drawing.name)
def test_drawings_are_well_formed_and_tell_in_words_what_they_show(drawing):
    tree = ElementTree.parse(drawing)
    for element in ("title", "desc"):
        assert tree.findtext(f"{{http://www.w3.org/2000/svg}}{element}")
    assert "prefers-color-scheme: dark" in drawing.read_text()
