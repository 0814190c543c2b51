"""`python -m sweeprun_volume`: prepare, survey, make-init-dir, finish-init.

Exit codes: 0 a report was written (Blocked is an answer too), the directory made, or the survey over; 2 wrong usage or
an unreadable request; 1 anything else. Without a report there is no answer, and the operator asks again.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from types import FrameType
from typing import Optional

from sweeprun_protocol.codec import RecordError
from sweeprun_protocol.prepare import REQUEST_ENV, PrepareReport, PrepareRequest

from .inits import make_init_directory
from .operations import Volume
from .prepare import SETTLE_SECONDS, finish_init, prepare

USAGE = 2


def main(arguments: Optional[list[str]] = None) -> int:
    options = _parser().parse_args(arguments)
    volume = Volume(options.root)
    if options.command == "make-init-dir":
        print(make_init_directory(volume, key=options.key, staging=options.staging))  # noqa: T201 - for the log
        return 0
    try:
        request = PrepareRequest.decode(_request_text())
    except RecordError as error:
        print(f"prepare: {error}", file=sys.stderr)  # noqa: T201
        return USAGE
    if options.command == "survey":
        _survey(volume, request, options.seconds)
        return 0
    if options.command == "finish-init":
        report = finish_init(volume, request, staging=options.staging, settle_seconds=options.settle_seconds)
    else:
        report = prepare(volume, request, settle_seconds=options.settle_seconds)
    _write(report, options.report)
    return 0


def _survey(volume: Volume, request: PrepareRequest, seconds: float) -> None:
    from .surveyor import survey  # the other commands start without it

    # the first process of a container has no default handlers, and nothing waits for what this one would still find
    signal.signal(signal.SIGTERM, _leave)
    os.nice(10)
    for line in survey(volume, request, seconds=seconds):
        print(f"survey: {line}")  # noqa: T201 - for the log


def _leave(_number: int, _frame: Optional[FrameType]) -> None:
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sweeprun_volume", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("prepare", "survey", "finish-init", "make-init-dir"):
        command = commands.add_parser(name)
        command.add_argument("--root", required=True, help="where the volume is mounted")
        if name == "survey":
            command.add_argument("--seconds", type=float, required=True, help="how long it may take at most")
        if name in ("prepare", "finish-init"):
            command.add_argument("--report", default="/dev/termination-log", help="file that takes the answer")
            command.add_argument("--settle-seconds", type=float, default=SETTLE_SECONDS)
        if name == "make-init-dir":
            command.add_argument("--key", required=True, help="SWEEPRUN_INIT_KEY")
        if name in ("finish-init", "make-init-dir"):
            command.add_argument("--staging", required=True, help="name of this pod's directory: the pod's UID")
    return parser


def _request_text() -> str:
    text = os.environ.get(REQUEST_ENV)
    if not text:
        raise RecordError(REQUEST_ENV, "is not set")
    return text


def _write(report: PrepareReport, path: str) -> None:
    """In place: the termination log is a mount of one file, which cannot be replaced."""
    data = report.encode()
    with open(path, "wb") as target:
        target.write(data)
    print(data.decode("ascii"), end="")  # noqa: T201 - the container's log keeps it as well


if __name__ == "__main__":
    sys.exit(main())
