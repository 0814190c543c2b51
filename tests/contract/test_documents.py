"""Every command and manifest in the documents is one that a test runs; links lead somewhere; the site loads nothing."""

import ast
import os
import re
import subprocess
import sys

import pytest
import typer
import yaml

from support.documents import DOCUMENTS, ROOT, Proof, blocks, commands
from support.manifests import make_sweeprun, merged
from sweeprun_cli.__main__ import app
from sweeprun_operator.api.v1alpha1 import KIND, SweepRun

LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
LANGUAGES = {"sh", "yaml", "python", "text", "mermaid"}
A_COMMAND = re.compile(r"^\s*(\$ )?(kubectl|helm|make|sweeprun|pip|export) ", re.MULTILINE)
INLINE = re.compile(r"`((?:sweeprun|kubectl sweeprun) [^`\n]+|make [a-z0-9-]+)[^`\n]*`")
PATHS = re.compile(r"\b(?:examples|charts|hack)/[\w./-]*\w")
LOADED = re.compile(r"<(?:script|link|img|iframe|source|video|object|embed)\b[^>]*?(?:src|href|data)=\"?(?:https?:)?//")
COMMAND_LINE = typer.main.get_command(app)


def parameters(found):
    return [pytest.param(one, id=f"{getattr(one, 'block', one).where}: {one.text[:40]}") for one in found]


def parsed(words):
    """What the command line itself makes of the words; raises its errors."""
    command, rest = found(words)
    assert not hasattr(command, "commands"), f"no command: {words}"
    return command.make_context("sweeprun", rest)


def found(words):
    """The command that is named, and what it is given."""
    command, words = COMMAND_LINE, list(words)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("command", parameters(commands()))
def test_every_documented_command_is_one_that_a_test_runs(command):
    assert command.proof is not None, f"{command.block.where}: no test runs `{command.text}`; see support/documents.py"
    for path in PATHS.findall(command.text):
        assert (ROOT / path).exists(), f"{command.block.where}: {path} is not there"
    if command.words[0] == "sweeprun" and command.proof is not Proof.COMPLETION:
        parsed(command.words[1:])


@pytest.mark.parametrize("command", parameters(one for one in commands() if one.proof is Proof.MAKE))
def test_every_documented_target_can_be_made(command):
    said = subprocess.run(["make", "-n", *command.words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("command", parameters(one for one in commands() if one.proof is Proof.PACKAGE))
def test_every_documented_extra_exists(command):
    known = set(re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for package in command.words[2:]:
        name, _, extras = package.rstrip("]").partition("[")
        assert name in (".", "sweeprun")
        assert set(filter(None, extras.split(","))) <= known


def test_a_shell_of_the_test_cluster_finds_its_kubeconfig_and_its_programs(tmp_path):
    line = next(one.text for one in commands() if one.proof is Proof.SHELL)
    programs = tmp_path / "a cache" / "cluster" / "bin"
    programs.mkdir(parents=True)
    (programs / "kubectl").touch(0o755)
    environment = {**os.environ, "SWEEPRUN_CACHE": str(tmp_path / "a cache")}
    asked = f'{line}; echo "$KUBECONFIG"; command -v kubectl; echo "$PATH"'
    said = subprocess.run(["bash", "-euc", asked], cwd=ROOT, env=environment, capture_output=True, text=True)
    kubeconfig, kubectl, path = said.stdout.splitlines()
    assert kubeconfig == str(programs.parent / "kubeconfig"), said.stderr
    assert kubectl == str(programs / "kubectl")
    assert path.split(":")[1] == str(ROOT / ".venv" / "bin"), "sweeprun is there after make install"
    assert path.endswith(os.environ["PATH"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_in_running_text_exist(document):
    for text in INLINE.findall(document.read_text()):
        words = text.removeprefix("kubectl ").split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), text
            continue
        command, words = found(words[1:])
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        known |= {"--help", "--install-completion", "--show-completion"}
        assert words == [] or not hasattr(command, "commands") or words[0].startswith("-"), f"no command: {text}"
        given = {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1}
        assert given <= known, f"{document.name}: `{text}`"


@pytest.mark.parametrize("block", parameters(blocks()))
def test_every_block_says_what_it_is(block):
    assert block.language in LANGUAGES, f"{block.where}: name the language; {sorted(LANGUAGES)} are known"
    if block.language in ("text", "mermaid"):
        assert not A_COMMAND.search(block.text), f"{block.where}: commands stand in sh blocks, where tests find them"
    if block.language == "python":
        ast.parse(block.text)


@pytest.mark.parametrize("block", parameters(one for one in blocks() if one.language == "yaml"))
def test_every_documented_manifest_is_one_that_the_models_take(block):
    for manifest in yaml.safe_load_all(block.text):
        if "kind" not in manifest:  # a part of a SweepRun, from `spec:` on
            assert set(manifest) == {"spec"}, f"{block.where}: neither a manifest nor the spec of a SweepRun"
            manifest = merged(make_sweeprun(), manifest)
        if manifest["kind"] == KIND:
            SweepRun.from_wire({**manifest, "metadata": {**manifest["metadata"], "uid": "u"}})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_file_that_the_architecture_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = 0
    for folder, table in re.findall(r"\(`([\w/]+)`\):\n\n((?:\|.*\n)+)", text):
        for name in re.findall(r"`([\w/]+\.(?:py|sh))`", table):
            assert (ROOT / folder / name).exists(), f"{folder}/{name}"
            named += 1
    assert named > 40, "the tables were not found"


def test_every_page_is_in_the_navigation_and_nothing_is_loaded_from_elsewhere(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").rglob("*.md")))
    for page in pages:
        assert not LOADED.findall(page.read_text()), page.name


def test_a_page_that_loads_something_is_found():
    assert LOADED.search('<script async src="https://cdn.test/x.js">')
    assert LOADED.search('<link rel="stylesheet" href="//fonts.test/css">')
    assert not LOADED.search('<script src="assets/x.js"></script><a href="https://elsewhere.test">')
