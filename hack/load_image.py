#!/usr/bin/env python3
"""Brings an image into the containerd of nodes: `load_image.py IMAGE IMAGE_ID NODE...`.

`kind load` sends the whole archive to every node. Here it is read once, and each node is sent what it lacks: seconds
instead of a minute for a training image whose last layers have changed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
from typing import IO

IMPORT = """
ctr --namespace=k8s.io images import --all-platforms --digests --snapshotter=overlayfs - >/tmp/import.log 2>&1 || {
  cat /tmp/import.log >&2
  exit 1
}
mkdir -p /kind/loaded
echo "$1" >"$2"
"""


class Node:
    def __init__(self, name: str, image: str, image_id: str) -> None:
        listing = subprocess.run(
            ["docker", "exec", name, "ctr", "--namespace=k8s.io", "content", "ls", "-q"],
            check=True,
            capture_output=True,
            text=True,
        )
        self.name = name
        self.present = {digest.removeprefix("sha256:") for digest in listing.stdout.split()}
        mark = "/kind/loaded/" + image.replace("/", "_")
        self._import = subprocess.Popen(
            ["docker", "exec", "-i", name, "sh", "-c", IMPORT, "sh", image_id, mark], stdin=subprocess.PIPE
        )
        assert self._import.stdin is not None
        self.archive = tarfile.open(fileobj=self._import.stdin, mode="w|")  # noqa: SIM115 - closed in finish()

    def finish(self) -> int:
        assert self._import.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.archive.close()
            self._import.stdin.close()
        return self._import.wait()


def copy(source: IO[bytes], nodes: list[Node]) -> None:
    with tarfile.open(fileobj=source, mode="r|") as image:
        for member in image:
            folder, _, digest = member.name.rpartition("/")
            lacking = [node for node in nodes if folder != "blobs/sha256" or digest not in node.present]
            content = image.extractfile(member) if member.isreg() else None
            if content is None:
                for node in lacking:
                    node.archive.addfile(member)
                continue
            for node in lacking:
                node.archive.fileobj.write(member.tobuf(node.archive.format))  # type: ignore[union-attr]
            remaining = member.size
            while lacking and remaining:
                part = content.read(min(remaining, 1 << 20))
                remaining -= len(part)
                for node in lacking:
                    node.archive.fileobj.write(part)  # type: ignore[union-attr]
            padding = -member.size % tarfile.BLOCKSIZE
            for node in lacking:
                node.archive.fileobj.write(bytes(padding))  # type: ignore[union-attr]


def main(arguments: list[str]) -> int:
    image, image_id, *names = arguments
    nodes = [Node(name, image, image_id) for name in names]
    save = subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE)
    assert save.stdout is not None
    with contextlib.suppress(BrokenPipeError), save.stdout:
        copy(save.stdout, nodes)
    failed = [node.name for node in nodes if node.finish() != 0]
    if failed:
        print(f"{image} could not be loaded into {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or save.wait() != 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
