"""docs/reference/environment.md: variables, labels and exit codes, as the packages that own them describe them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from sweeprun_cli.explain.exit_codes import CONTAINER
from sweeprun_protocol import environ, keys
from sweeprun_trainer import settings

HEADER = """# Variables, labels, exit codes

<!-- Generated from protocol/, trainer_entrypoint/ and cli/ by `make generate`; do not edit. -->

What stands between the operator, the pods and the people who look at them. [protocol.md](../protocol.md) has the rules
that go with it.
"""


def reference() -> str:
    variables = [*described(environ), *described(settings)]
    labels = [(text, told) for text, told in described(keys) if "/" in text]
    lines = [
        HEADER,
        "## Variables of a training container\n",
        "The operator sets them; your template cannot. An image may bring those marked *optional*.\n",
        *_table(
            ("variable", "meaning"),
            [(f"`{name}`", told) for name, told in variables if name.startswith(("SWEEPRUN_", "WANDB_"))],
        ),
        "",
        "## Labels and annotations of children\n",
        *_table(("key", "meaning"), [(f"`{name}`", told) for name, told in labels]),
        "",
        "## Exit codes of a training container\n",
        "The command's own is kept; 128 + n says that signal n ended it. `sweeprun explain CODE` says the same.\n",
        *_table(
            ("code", "name", "meaning", "what to do"),
            [
                (str(code.value), f"`{code.name}`", entry.meaning, entry.advice or "")
                for code, entry in CONTAINER.items()
            ],
        ),
        "",
    ]
    return "\n".join(lines)


def described(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Value and description of every constant of the module that holds a text; empty where nothing is said of it."""
    body = ast.parse(inspect.getsource(module)).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        value = getattr(module, node.targets[0].id)
        if isinstance(value, str):
            yield value, _text(following)


def _text(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    yield from (f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
