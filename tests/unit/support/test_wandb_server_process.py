"""The W&B test server as a pod runs it: two files, a Python without packages, a journal that outlives it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.wandb_server import Journal
from support.wandb_server.manifest import FILES, Manifest, manifests, proxy_path, service_url

SOURCE = Path(__file__).parents[2] / "support" / "wandb_server"


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """The files as a ConfigMap mounts them: links into a directory that is exchanged as a whole."""
    mount = tmp_path / "mount"
    (mount / "..2026").mkdir(parents=True)
    (mount / "..data").symlink_to("..2026")
    for name in FILES:
        shutil.copy(SOURCE / name, mount / "..2026")
        (mount / name).symlink_to(f"..data/{name}")
    return mount


@contextmanager
def started(mounted: Path, journal: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = ["--host", "127.0.0.1", "--port", "0", "--journal", str(journal)]
    # -S: without the packages of this environment.
    command = [sys.executable, "-S", "-E", "-B", str(mounted / "server.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def post_rows(url: str, offset: int, *steps: int) -> None:
    content = [json.dumps({"_step": step}) for step in steps]
    data = json.dumps({"files": {"wandb-history.jsonl": {"offset": offset, "content": content}}}).encode()
    urllib.request.urlopen(f"{url}/files/team/project/run-1/file_stream", data, timeout=10).close()


def test_a_killed_server_goes_on_where_it_was(mounted: Path, tmp_path: Path) -> None:
    with started(mounted, tmp_path / "journal") as (process, url):
        post_rows(url, 0, 0, 1, 2)
        before = Journal.fetch(url)
        os.kill(process.pid, signal.SIGKILL)
    with started(mounted, tmp_path / "journal") as (_, url):
        assert Journal.fetch(url).raw == before.raw
        post_rows(url, 3, 3)
        journal = Journal.fetch(url)
    assert journal.run("team", "project", "run-1").steps == [0, 1, 2, 3]
    assert [event["seq"] for event in journal.events] == [1, 2]


def test_an_event_that_a_crash_cut_off_is_dropped(mounted: Path, tmp_path: Path) -> None:
    file = tmp_path / "journal" / "events.jsonl"
    with started(mounted, tmp_path / "journal") as (_, url):
        post_rows(url, 0, 0)
        post_rows(url, 1, 1)
    file.write_bytes(file.read_bytes()[:-5])
    with started(mounted, tmp_path / "journal") as (_, url):
        assert Journal.fetch(url).run("team", "project", "run-1").steps == [0]
        post_rows(url, 1, 1)
    with started(mounted, tmp_path / "journal") as (_, url):
        assert Journal.fetch(url).run("team", "project", "run-1").steps == [0, 1]


def test_sigterm_ends_it_at_once(mounted: Path, tmp_path: Path) -> None:
    with started(mounted, tmp_path / "journal") as (process, url):
        post_rows(url, 0, 0)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_the_mounted_files_are_python_3_9(name: str) -> None:
    ast.parse((SOURCE / name).read_text(encoding="utf-8"), feature_version=(3, 9))


def test_the_journal_holds_no_credentials(mounted: Path, tmp_path: Path) -> None:
    with started(mounted, tmp_path / "journal") as (_, url):
        request = urllib.request.Request(f"{url}/graphql", b"{}", {"Authorization": "Basic c2VjcmV0"})
        urllib.request.urlopen(request, timeout=10).close()
    assert "c2VjcmV0" not in (tmp_path / "journal" / "events.jsonl").read_text(encoding="utf-8")


def by_kind(objects: list[Manifest]) -> dict[str, Manifest]:
    return {one["kind"]: one for one in objects}


def test_the_manifests_fit_together() -> None:
    objects = by_kind(manifests("tests", "trainer:1", port=9000))
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    assert list(objects) == ["ConfigMap", "Deployment", "Service"]
    assert set(objects["ConfigMap"]["data"]) == set(FILES)
    assert service["selector"] == deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"]
    assert service["ports"][0]["port"] == 9000
    assert service_url("tests", port=9000) == "http://wandb.tests.svc:9000"
    assert proxy_path("tests", port=9000) == "/api/v1/namespaces/tests/services/wandb:9000/proxy/journal"


def test_the_pod_is_restricted() -> None:
    pod = by_kind(manifests("tests", "trainer:1"))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {"configMap", "emptyDir"}


def test_the_journal_can_be_put_on_a_claim_and_a_node() -> None:
    objects = by_kind(manifests("tests", "trainer:1", claim="journal", node_selector={"role": "control"}))
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"role": "control"}
    assert pod["volumes"][1]["persistentVolumeClaim"] == {"claimName": "journal"}
