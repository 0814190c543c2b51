"""docs/protocol.md, with the tables of docs/reference/environment.md, names all that both sides read and write: fields,
variables, exit codes, files, words, bounds."""

import ast
import re
from pathlib import Path

import pytest

from sweeprun_protocol import history, layout, prepare
from sweeprun_protocol.exit_codes import ExitCode
from sweeprun_protocol.manifest import CHUNK
from sweeprun_protocol.reasons import BlockedReason, Level, Outcome, VerdictKind
from sweeprun_protocol.verdicts import MAX_FIRST_BYTES
from sweeprun_trainer import ending, settings
from sweeprun_volume import decisions, operations, quarantine, retention, standings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "protocol.md").read_text()
TABLES = (ROOT / "docs" / "reference" / "environment.md").read_text()


def quoted(text):
    """What stands in backticks; elsewhere a field's name may be an ordinary word."""
    return set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", " ".join(re.findall(r"`([^`\n]+)`", text))))


WORDS = quoted(TEXT)
PROTOCOL = ROOT / "protocol" / "sweeprun_protocol"


def fields_written_in(path):
    """Keys of every dictionary that `path` writes as JSON: those of its to_dict, _dict and encode."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.lstrip("_") in ("to_dict", "dict", "encode", "file_to_dict"):
            for part in ast.walk(node):
                if isinstance(part, ast.Dict):
                    yield from (key.value for key in part.keys if isinstance(key, ast.Constant))


FIELDS = sorted(
    {
        (path.stem, name)
        for path in [*PROTOCOL.glob("*.py"), Path(decisions.__file__)]
        for name in fields_written_in(path)
    }
)
VARIABLES = sorted(
    {
        name
        for path in [*PROTOCOL.glob("*.py"), *(ROOT / "trainer_entrypoint" / "sweeprun_trainer").glob("*.py")]
        for name in re.findall(r'"(SWEEPRUN_[A-Z_]+)"', path.read_text())
    }
)
FILES = [
    *(layout.MARKER, layout.RESULT, layout.SUPERSEDED_BY, layout.RUN_RECORD, layout.MANIFEST, layout.VOLUME_RECORD),
    *(
        f"{name}/"
        for name in (
            layout.CLAIMS,
            layout.EPOCHS,
            layout.QUARANTINE,
            layout.ABANDONED,
            layout.INITS,
            layout.VERDICTS,
            layout.TRASH,
        )
    ),
    *(standings.INIT_OF_RUN, "foreign-<hash>.json", operations.TEMPORARY_PREFIX, quarantine.VERDICT_SUFFIX),
    *("decision.json", "start-<slot>.json", "end-<slot>.json", "library.json", "complete.json", layout.CURVE),
    layout.step_name(500, 9),
    str(layout.VerdictName("<key>", 10, Level.FULL, VerdictKind.FIRST)),
]


def test_the_fields_of_every_module_are_found():
    assert {module for module, _ in FIELDS} == {*("records", "manifest", "prepare", "verdicts", "decisions", "history")}
    assert {("records", "toldToStop"), ("manifest", "chunks"), ("verdicts", "chosen"), ("decisions", "mtimeNs")} <= set(
        FIELDS
    )


@pytest.mark.parametrize(("module", "name"), FIELDS)
def test_every_field_of_every_record_is_documented(module, name):
    assert name in WORDS


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_documented(name):
    assert name in WORDS | quoted(TABLES)


def test_no_variable_is_documented_that_nobody_reads_or_writes():
    assert {word for word in WORDS | quoted(TABLES) if word.startswith("SWEEPRUN_")} - {"SWEEPRUN_"} == set(VARIABLES)


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_every_exit_code_is_documented_by_number_and_name(code):
    assert f"| {code.value} | `{code.name}` |" in TABLES


def test_no_exit_code_is_documented_that_does_not_exist():
    rows = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \|", TABLES, re.MULTILINE)
    assert {(int(number), name) for number, name in rows} == {(code.value, code.name) for code in ExitCode}


@pytest.mark.parametrize("word", [*BlockedReason, *Outcome], ids=str)
def test_every_answer_of_prepare_is_documented(word):
    assert str(word) in WORDS


@pytest.mark.parametrize("kind", VerdictKind, ids=str)
def test_every_kind_of_verdict_is_documented(kind):
    assert str(kind) in WORDS


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_documented(name):
    assert name in TEXT


@pytest.mark.parametrize(
    "phrase",
    [
        f"Port {settings.DEFAULT_PORT}",
        "{0.fence_seconds:g}, {0.sample_seconds:g} and {0.settle_seconds:g}".format(settings.Settings()),
        f"({ending.MIN_PUBLISH_SECONDS:g} to {ending.MAX_PUBLISH_SECONDS:g} s)",
        f"{ending.GOOD_END_PATIENCE_SECONDS:g} s after exit code 0",
        f"at most {ending.MAX_PATIENCE_SECONDS:g} s after a failure",
        f"at most {prepare.REPORT_BYTES} bytes",
        f"at most {history.MAX_HISTORY_BYTES} bytes",
        f"({CHUNK >> 20} MiB)",
        f"first verdicts {MAX_FIRST_BYTES >> 20} MiB",
        f"more than {MAX_FIRST_BYTES >> 20} MiB they are left out",
        f"decisions {decisions.MAX_DECISION_BYTES >> 20} MiB",
        f"more than {operations.MAX_ENTRIES:_} entries".replace("_", " "),
        f"spends {retention.REMOVAL_SECONDS:g} s on this",
    ],
)
def test_every_bound_is_the_codes(phrase):
    assert phrase in " ".join(TEXT.split())


def test_no_table_stands_in_both():
    rows = {line for line in TABLES.splitlines() if line.startswith("| `SWEEPRUN_") or re.match(r"\| \d+ \|", line)}
    first = [row.split("|")[1].strip() for row in rows]
    assert first
    assert not [cell for cell in first if re.search(rf"^\| {re.escape(cell)} \|", TEXT, re.MULTILINE)]
