"""docs/command.md, made from the commands themselves, and docs/reference/environment.md:
`python -m sweeprun_cli.document write|check`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo, ParameterInfo

from sweeprun_cli.__main__ import app
from sweeprun_cli.explain.exit_codes import COMMAND
from sweeprun_cli.reference import reference
from sweeprun_operator.api import generated

DOCUMENT = Path("docs") / "command.md"
REFERENCE = Path("docs") / "reference" / "environment.md"
_NAMES: dict[Any, str] = {int: "INTEGER", float: "NUMBER", Path: "PATH"}
HEADER = """# The command `sweeprun`

<!-- Generated from cli/sweeprun_cli by `make generate`; do not edit. -->

`pip install '.[cli]'` in a clone brings it, and `kubectl sweeprun` is the same. It finds the cluster as kubectl does:
`--kubeconfig`, else `KUBECONFIG`, else `~/.kube/config`, else the account of the pod that it runs in. Reading needs the
verbs get and list on `sweepruns.sweeprun.dev`; `retry`, `stop`, `suspend` and `resume` need patch.
`sweeprun --install-completion` has your shell complete commands, options and words; kubectl 1.26 or newer completes
`kubectl sweeprun` by `kubectl_complete-sweeprun`, which is installed beside it.

Texts of a status are a tenant's: control characters in them are shown, never obeyed. What no status records is shown as
unknown.
"""


def document() -> str:
    return "\n".join([HEADER, *_chapters(app, "sweeprun"), *_exit_codes(), ""])


def _chapters(of: typer.Typer, name: str) -> Iterator[str]:
    """From the functions themselves: what typer makes of them inside changes with its versions."""
    commands = {one.name or one.callback.__name__: one.callback for one in of.registered_commands if one.callback}
    groups = {one.name: one.typer_instance for one in of.registered_groups if one.name and one.typer_instance}
    for word in sorted({*commands, *groups}):
        if word in commands:
            yield from _chapter(commands[word], f"{name} {word}")
        else:
            yield from _chapters(groups[word], f"{name} {word}")


def _chapter(command: Callable[..., Any], name: str) -> Iterator[str]:
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    found = [(one, *_taken(hints[one.name])) for one in parameters]
    arguments = [item for item in found if isinstance(item[2], ArgumentInfo)]
    options = [item for item in found if not isinstance(item[2], ArgumentInfo)]
    yield f"## `{' '.join([name, *(_argument(one, info) for one, _, info in arguments)])}`\n"
    yield inspect.cleandoc(command.__doc__ or "") + "\n"
    yield "| | |\n|---|---|"
    for one, kind, info in (*arguments, *options):
        shown = _argument(one, info) if isinstance(info, ArgumentInfo) else _option(one, kind, info)
        yield f"| `{_cell(shown)}` | {_cell(_help(one, info))} |"
    yield ""


def _taken(hint: Any) -> tuple[Any, ParameterInfo]:
    """Type without None, and what typer was told; nothing, where the type stands alone."""
    kind, *told = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kinds = [one for one in get_args(kind) if one is not type(None)] if isinstance(kind, UnionType) else [kind]
    return kinds[0], next((one for one in told if isinstance(one, ParameterInfo)), OptionInfo())


def _argument(one: inspect.Parameter, info: ParameterInfo) -> str:
    shown = info.metavar or one.name.upper()
    return shown if one.default is inspect.Parameter.empty or shown.startswith("[") else f"[{shown}]"


def _option(one: inspect.Parameter, kind: Any, info: ParameterInfo) -> str:
    first = (info.default,) if isinstance(info.default, str) else ()
    names = ", ".join(name for name in (*first, *(info.param_decls or ()))) or f"--{one.name.replace('_', '-')}"
    if kind is bool:
        return names
    if info.metavar is not None:
        return f"{names} {info.metavar}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"{names} {'|'.join(_word(choice) for choice in kind)}"
    return f"{names} {_NAMES.get(kind, 'TEXT')}"


def _help(one: inspect.Parameter, info: ParameterInfo) -> str:
    silent = one.default in (None, False, inspect.Parameter.empty) or info.show_default is False
    return (info.help or "") + ("" if silent else f" Default: `{_word(one.default)}`.")


def _word(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | meaning | what to do |\n|---|---|---|"
    yield from (f"| {int(code)} | {_cell(entry.meaning)} | {_cell(entry.advice)} |" for code, entry in COMMAND.items())
    yield "\n`inspect` and `local` use 0 to 3 for what they find; `sweeprun explain CODE` tells more."


if __name__ == "__main__":
    texts = {DOCUMENT: document(), REFERENCE: reference()}
    sys.exit(generated.main(texts, program="python -m sweeprun_cli.document", source="the code says"))
