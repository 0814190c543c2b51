#!/usr/bin/env python3
"""Packs protocol, volume and trainer into one file that any Python 3.9 can run: `build_zipapp.py OUTPUT`.

An init container copies it beside a training script, whose image then needs nothing of ours. The same sources give
the same bytes: names sorted, times fixed, modes fixed.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    ROOT / "protocol" / "sweeprun_protocol",
    ROOT / "volume" / "sweeprun_volume",
    ROOT / "trainer_entrypoint" / "sweeprun_trainer",
)
MAIN = """\
import sys

from sweeprun_trainer.__main__ import main

sys.exit(main())
"""
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)


def files() -> dict[str, bytes]:
    found = {"__main__.py": MAIN.encode()}
    for package in PACKAGES:
        for path in package.rglob("*"):
            if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts:
                found[path.relative_to(package.parent).as_posix()] = path.read_bytes()
    return found


def build() -> bytes:
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files().items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, content)
    return buffer.getvalue()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: build_zipapp.py OUTPUT", file=sys.stderr)
        return 2
    output = Path(arguments[0])
    content = build()
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(output.name + ".new")
    temporary.write_bytes(content)
    temporary.chmod(0o755)
    os.replace(temporary, output)
    print(f"{output}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
