"""Asks a W&B sweep for one trial, as `wandb agent` does, and leaves it to the SweepRun: its parameters become the
configuration, its ID becomes the W&B run. Standard library only.

Runs once per fresh start and never on a resume. A pod that is evicted between the answer and its end leaves a trial
that nobody runs, as an agent that crashes does: the sweep shows it as crashed.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

CREATE_AGENT = """mutation CreateAgent($host: String!, $projectName: String!, $entityName: String!, $sweep: String!) {
    createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) {
        agent { id }
    }
}"""
HEARTBEAT = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
    agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
}"""
REQUEST_SECONDS = 30
POLL_SECONDS = 5.0
"""As the agent's own."""


def ask(query: str, **variables: str) -> dict[str, Any]:
    """One GraphQL request; raises OSError where it fails and SystemExit where the server refuses."""
    url = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/") + "/graphql"
    key = base64.b64encode(f"api:{os.environ['WANDB_API_KEY']}".encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
    body = json.dumps({"query": query, "variables": variables}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=REQUEST_SECONDS) as answer:
        told = json.load(answer)
    if told.get("errors"):
        sys.exit(f"W&B refuses: {told['errors'][0].get('message')}")
    return dict(told["data"])


def next_trial(*, seconds: float) -> dict[str, Any]:
    """`run_id` and `args` of the trial; exits where the sweep has none any more, or none within `seconds`."""
    place = {name: os.environ[f"WANDB_{name.upper()}"] for name in ("entity", "project", "sweep_id")}
    created = ask(
        CREATE_AGENT,
        host=socket.gethostname(),
        entityName=place["entity"],
        projectName=place["project"],
        sweep=place["sweep_id"],
    )
    agent = created["createAgent"]["agent"]["id"]
    deadline = time.monotonic() + seconds
    while True:
        beat = ask(HEARTBEAT, id=agent, metrics="{}", runState="{}")
        for command in json.loads(beat["agentHeartbeat"]["commands"]):
            if command["type"] in ("run", "resume"):
                return dict(command)
            sys.exit(f"the sweep has no trial for us: {command['type']}")
        if time.monotonic() + POLL_SECONDS > deadline:
            sys.exit(f"the sweep had no trial for us within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)  # the protocol is to ask again


def main() -> None:
    trial = next_trial(seconds=600)
    directory = Path(os.environ["SWEEPRUN_INIT_DIR"])
    overrides = {name: given["value"] for name, given in trial["args"].items() if not name.startswith("wandb")}
    # JSON is YAML
    directory.joinpath("train_config_overrides.yaml").write_text(json.dumps(overrides, indent=2) + "\n")
    directory.joinpath("run.json").write_text(json.dumps({"wandbRunId": trial["run_id"]}))
    print(trial["run_id"], overrides)


if __name__ == "__main__":
    main()
