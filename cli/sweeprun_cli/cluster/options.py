"""Options that the commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace; absent: that of the context.", show_default=False)
]
Context = Annotated[
    str | None,
    typer.Option("--context", help="Context of the kubeconfig; absent: its current one.", show_default=False),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        help="File; absent: KUBECONFIG, else ~/.kube/config, else the pod's account.",
        show_default=False,
    ),
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="All namespaces.", show_default=False)]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a SweepRun.", show_default=False)]


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class PlainFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
