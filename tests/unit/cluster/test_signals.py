"""Every signal of docs/causes.md, from the pod as Kubernetes writes it to what stands in history."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.observations import make_scene, make_workload, seconds_ago
from support.signals import NAME, NODE, SIGNALS, Signal, ended, pod, running
from sweeprun_operator.api.status import MAX_EVIDENCE, Cause, Doubt
from sweeprun_operator.cluster.observe import attempt_pods
from sweeprun_operator.core.classify import KINDS, classify
from sweeprun_operator.core.scene import Scene
from sweeprun_operator.core.verdicts import Ended, GoesOn
from sweeprun_operator.core.witnesses import witnesses

TEXT = (Path(__file__).parents[3] / "docs" / "causes.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)[2:]


def scene_of(signal: Signal) -> Scene:
    raws = [pod("Running", running(), slot="master-0", uid="uid-a0-master-0")]
    raws += [signal.pod] if signal.pod is not None else []
    doubted = signal.scene.get("looked")
    doubt = Doubt(since=seconds_ago(doubted)) if doubted is not None else None
    return make_scene(
        *attempt_pods(copy.deepcopy(raws)),
        all_ran=signal.started,
        doubt=doubt,
        workload=make_workload(suspended=signal.scene.get("suspended", False)),
    )


@pytest.mark.parametrize(("name", "signal"), SIGNALS.items(), ids=SIGNALS.keys())
def test_a_signal_has_its_cause_and_keeps_what_the_pod_showed(name, signal):
    scene = scene_of(signal)
    verdict = classify(scene)
    if signal.cause is None:
        assert isinstance(verdict, GoesOn)
        return
    assert isinstance(verdict, Ended), verdict
    assert verdict.interruption.cause is signal.cause
    if signal.pod is None:
        return
    kept = witnesses(scene, verdict.interruption.pod)[0]
    status = signal.pod["status"]
    assert (kept.name, kept.node, kept.phase, kept.reason) == (NAME, NODE, status["phase"], status.get("reason"))
    assert kept.deleting == ("deletionTimestamp" in signal.pod["metadata"])
    marks = [item["reason"] for item in status["conditions"] if item["type"] == "DisruptionTarget"]
    assert kept.disruption == (marks[0] if marks else None)
    codes = [item["state"].get("terminated", {}).get("exitCode") for item in status["containerStatuses"]]
    assert kept.exit_code == (codes[0] if codes else None)


def test_the_document_has_a_row_for_every_signal_and_no_other():
    assert [name for name, _, _ in ROWS] == list(SIGNALS)
    assert len(ROWS) == 28


@pytest.mark.parametrize(("name", "cause", "kind"), ROWS)
def test_the_document_says_what_is_done(name, cause, kind):
    signal = SIGNALS[name]
    if signal.cause is None:
        assert (cause, kind) == ("goes on", "-")
        return
    assert (cause, kind) == (f"`{signal.cause}`", str(KINDS[signal.cause]))


@pytest.mark.parametrize(
    "name", [name for name, signal in SIGNALS.items() if signal.pod and signal.cause is Cause.KUBELET]
)
def test_twin_the_same_pod_running_and_unmarked_ends_nothing(name):
    whole = copy.deepcopy(SIGNALS[name].pod)
    whole["status"] = pod("Running", running())["status"]
    assert isinstance(classify(scene_of(replace(SIGNALS[name], pod=whole))), GoesOn)


# -- what is kept ------------------------------------------------------------------------------------------------------


def seen(*raws: dict[str, Any], **fields: Any) -> Scene:
    return make_scene(*attempt_pods(raws), **fields)


def test_the_pod_that_is_named_comes_first_then_those_that_failed_in_time():
    pods = [
        pod(
            "Failed", ended(1, finishedAt=f"2026-03-01T11:59:{50 - index:02}Z"), slot=f"worker-{index}", uid=f"u{index}"
        )
        for index in range(6)
    ]
    kept = witnesses(seen(*pods), f"{NAME[:-1]}0")
    assert [one.name[-1] for one in kept] == ["0", "5", "4", "3"]
    assert len(kept) == MAX_EVIDENCE


def test_pods_that_are_well_tell_nothing():
    assert witnesses(seen(pod("Running", running())), None) == []


def test_a_pod_that_is_gone_tells_what_a_watch_heard():
    (departed,) = attempt_pods([SIGNALS["preemption by the scheduler"].pod])
    (kept,) = witnesses(make_scene(departed=(departed,), pods=()), NAME)
    assert (kept.disruption, kept.node) == ("PreemptionByScheduler", NODE)


HOSTILE = "\x1b[2J\x00\u202e" + "\U0001f4a5" * 10_000 + "\ud800"


def test_hostile_texts_are_bounded_and_hold_no_control_sequences():
    raw = pod("Failed", ended(1, HOSTILE, message=HOSTILE), reason=HOSTILE, message=HOSTILE)
    raw["status"]["conditions"][0] |= {"type": "DisruptionTarget", "reason": HOSTILE, "message": HOSTILE}
    raw["spec"]["nodeName"] = HOSTILE
    scene = seen(raw)
    interruption = classify(scene).interruption
    (kept,) = witnesses(scene, interruption.pod)
    assert len(interruption.evidence) <= 1024
    for text in (interruption.evidence, kept.reason, kept.disruption, kept.container_reason, kept.node):
        assert all(letter.isprintable() for letter in text)
        text.encode()
    assert len(kept.model_dump_json().encode()) < 4 * 1024


def test_an_exit_code_that_is_none_of_this_world_is_kept_out():
    raw = pod("Failed", ended(10**30))
    (kept,) = witnesses(seen(raw), NAME)
    assert kept.exit_code is None
