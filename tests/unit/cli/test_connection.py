"""What becomes of a server's answers: a scripted server on the loopback gives those that a real one gives rarely."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from support.shown import harmless, shown_condition, shown_run, shown_status
from sweeprun_cli.__main__ import app
from sweeprun_cli.cluster.runs import Row
from sweeprun_cli.exits import Exit
from sweeprun_cli.watch import _list, _Screen

GROUP = "/apis/sweeprun.dev/v1alpha1"
RUNS = f"{GROUP}/namespaces/sweeps/sweepruns"
SERVED = (200, {"resources": [{"name": "sweepruns"}]})


class Server:
    """Answers each request with the next one of its script, by method and path; the last one stands."""

    def __init__(self) -> None:
        self.script: dict[str, list[tuple[int, object]]] = {}
        self.bodies: list[dict] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                if size:
                    scripted.bodies.append(json.loads(self.rfile.read(size)))
                answers = scripted.script.get(f"{self.command} {self.path.split('?')[0]}", [(404, "not found")])
                code, body = answers.pop(0) if len(answers) > 1 else answers[0]
                data = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PATCH = answer  # noqa: N815  (the names are http.server's)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture
def shell(server, tmp_path):
    config = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.http.server_port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "sweeps"}}],
        "users": [{"name": "u", "user": {"token": "very-secret-token"}}],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    return lambda *arguments: CliRunner().invoke(app, [*arguments, "--kubeconfig", str(path)])


@pytest.mark.parametrize("arguments", [("get",), ("why", "a"), ("stop", "a")])
def test_a_cluster_that_does_not_know_sweepruns_is_told_apart_from_a_run_that_is_not_there(server, shell, arguments):
    shown = shell(*arguments)
    assert shown.exit_code == Exit.NOT_INSTALLED
    assert "charts/sweeprun" in shown.stderr
    server.script[f"GET {GROUP}"] = [SERVED]
    assert shell(*arguments).exit_code == Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        (401, Exit.FORBIDDEN, "not logged in"),
        (403, Exit.FORBIDDEN, "get and list"),
        (422, Exit.REFUSED, "refuses"),
        (500, Exit.NO_CLUSTER, "no answer"),
    ],
)
def test_each_refusal_has_its_own_exit_code_and_a_message_without_secrets(server, shell, code, exit_code, said):
    server.script[f"GET {RUNS}"] = [(code, {"message": "\x1b[2Jno"})]
    shown = shell("get")
    assert shown.exit_code == exit_code
    assert said in shown.stderr
    assert harmless(shown.stderr)
    assert "very-secret" not in shown.output


def test_pages_of_a_long_list_are_joined(server, shell):
    first = {"items": [shown_run("b")], "metadata": {"continue": "more"}}
    server.script[f"GET {RUNS}"] = [(200, first), (200, {"items": [shown_run("a")], "metadata": {}})]
    lines = shell("get").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "a", "b"]


def test_a_change_is_made_to_what_was_read_and_tried_again_where_that_is_old(server, shell):
    newer = shown_run("a")
    newer["metadata"]["resourceVersion"] = "8"
    server.script[f"GET {RUNS}/a"] = [(200, shown_run("a")), (200, newer)]
    server.script[f"PATCH {RUNS}/a"] = [(409, {"message": "old"}), (200, newer)]
    assert shell("retry", "a").exit_code == 0
    first, second = server.bodies
    assert [body["metadata"]["resourceVersion"] for body in server.bodies] == ["7", "8"]
    assert first["spec"]["request"]["id"] == second["spec"]["request"]["id"]
    assert first["spec"]["request"]["fromStep"] is None


def test_a_change_that_never_fits_ends(server, shell):
    server.script[f"GET {RUNS}/a"] = [(200, shown_run("a"))]
    server.script[f"PATCH {RUNS}/a"] = [(409, {"message": "old"})]
    shown = shell("suspend", "a")
    assert shown.exit_code == Exit.REFUSED
    assert len(server.bodies) == 5


def test_watch_tells_each_change_once_and_ends_with_the_run(server, shell):
    done = shown_status(phase="Completed", conditions=[shown_condition("Complete")])
    running = (200, shown_run("a"))
    busy = (503, {"message": "the server is starting"})
    server.script[f"GET {RUNS}/a"] = [running, busy, running, (200, shown_run("a", status=done))]
    shown = shell("watch", "a", "--every", "0.2")
    assert shown.exit_code == Exit.OK
    assert [line.split()[2] for line in shown.stdout.splitlines()] == ["Running", "Completed"]
    assert "tried again" in shown.stderr


def test_a_watch_without_rights_ends(server, shell):
    server.script[f"GET {RUNS}/a"] = [(200, shown_run("a")), (403, {"message": "no"})]
    assert shell("watch", "a", "--every", "0.2").exit_code == Exit.FORBIDDEN


def test_a_run_that_is_deleted_ends_the_watch(server, shell):
    server.script[f"GET {GROUP}"] = [SERVED]
    server.script[f"GET {RUNS}/a"] = [(200, shown_run("a")), (404, {"message": "gone"})]
    assert shell("watch", "a", "--every", "0.2").exit_code == Exit.NOT_FOUND


def test_a_terminal_gets_its_cursor_back():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    rows = [Row.of(shown_run())]
    with _Screen(console) as screen:
        screen.show(rows, lambda: _list(rows, True))
    assert "digits-lr-0" in out.getvalue()
    assert out.getvalue().rindex("\x1b[?25h") > out.getvalue().rindex("\x1b[?25l")
