"""What a hostile or careless SweepRun asks for is refused at apply, with words that help; its harmless twin is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from support.cluster import RefusedError
from support.manifests import make_container, make_init, make_pod, make_sweeprun, make_template, with_value

from .conftest import dry_create

Raw = dict[str, Any]
WORKLOADS = (("kubeflow.org", "pytorchjobs"), ("batch", "jobs"), ("", "pods"))


@dataclass(frozen=True)
class Attack:
    name: str
    words: str
    bad: Raw
    good: Raw

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def training(**pod: Any) -> Raw:
    return make_sweeprun(template=make_template(pod=make_pod(**pod)))


def container(**changes: Any) -> Raw:
    return training_of(make_container(**changes))


def training_of(*containers: Raw, **pod: Any) -> Raw:
    return make_sweeprun(template=make_template(pod=make_pod(*containers, **pod)))


def init(**pod: Any) -> Raw:
    made = make_init()
    made["template"]["spec"] |= pod
    return make_sweeprun(init=made)


def init_env(*env: Raw) -> Raw:
    made = make_init()
    made["template"]["spec"]["containers"][0]["env"] = list(env)
    return make_sweeprun(init=made)


def secret(name: str) -> Raw:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": "wandb-key", "key": "key"}}}


def volume(**source: Any) -> list[Raw]:
    return [{"name": "shm", **source}]


MEMORY = volume(emptyDir={"medium": "Memory"})
HOST = volume(hostPath={"path": "/"})
LITERAL = {"name": "WANDB_API_KEY", "value": "0" * 40}
PRIVILEGED = {"privileged": True}
RESTRICTED = {"privileged": False, "allowPrivilegeEscalation": False}
OF_OURS = {"sweeprun.dev/uid": "another-run"}
OF_THEIRS = {"kueue.x-k8s.io/queue-name": "gpu"}


def labelled(labels: Raw) -> Raw:
    pod = make_pod() | {"metadata": {"labels": labels}}
    return make_sweeprun(template=make_template(pod=pod))


ATTACKS = [
    Attack("network of the node", "hostNetwork", training(hostNetwork=True), training(hostNetwork=False)),
    Attack("processes of the node", "hostPID", training(hostPID=True), training(hostPID=False)),
    Attack("memory of the node", "hostIPC", training(hostIPC=True), training()),
    Attack("past the scheduler", "nodeName", training(nodeName="n"), training(nodeSelector={"gpu": "h100"})),
    Attack("files of the node", "hostPath", training(volumes=HOST), training(volumes=MEMORY)),
    Attack("files of the node in init", "hostPath", init(volumes=HOST), init(volumes=MEMORY)),
    Attack("privileged", "privileged", container(securityContext=PRIVILEGED), container(securityContext=RESTRICTED)),
    Attack(
        "privileged before training",
        "privileged",
        training(initContainers=[make_container(name="setup", securityContext=PRIVILEGED)]),
        training(initContainers=[make_container(name="setup", securityContext=RESTRICTED)]),
    ),
    Attack(
        "a sidecar with a port of the node",
        "hostPort",
        training_of(make_container(), make_container(name="side", ports=[{"containerPort": 1, "hostPort": 1}])),
        training_of(make_container(), make_container(name="side", ports=[{"containerPort": 1}])),
    ),
    Attack(
        "another service account",
        "one of default, trainer",
        training(serviceAccountName="builder"),
        training(serviceAccountName="trainer"),
    ),
    Attack(
        "another service account by its old name",
        "one of default, trainer",
        training(serviceAccount="builder", serviceAccountName="trainer"),
        training(serviceAccount="trainer"),
    ),
    Attack(
        "another service account in init",
        "one of default, trainer",
        init(serviceAccountName="builder"),
        init(serviceAccountName="default"),
    ),
    Attack("a key in plain text", "secretKeyRef", container(env=[LITERAL]), container(env=[secret("WANDB_API_KEY")])),
    Attack("a key in init", "secretKeyRef", init_env(LITERAL), init_env(secret("WANDB_API_KEY"))),
    Attack(
        "a key from a ConfigMap",
        "secretKeyRef",
        container(env=[{"name": "WANDB_API_KEY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        container(env=[{"name": "WANDB_MODE", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
    ),
    Attack("labels of the operator", "labels and annotations", labelled(OF_OURS), labelled(OF_THEIRS)),
    Attack(
        "labels of the operator on the job",
        "labels and annotations",
        make_sweeprun(template=make_template() | {"metadata": {"labels": OF_OURS}}),
        make_sweeprun(template=make_template() | {"metadata": {"labels": OF_THEIRS}}),
    ),
    Attack(
        "annotations of the operator",
        "labels and annotations",
        make_sweeprun(template=make_template() | {"metadata": {"annotations": {"sweeprun.dev/epoch": "9"}}}),
        make_sweeprun(template=make_template() | {"metadata": {"annotations": {"team/epoch": "9"}}}),
    ),
    Attack(
        "labels of the operator on helper pods",
        "labels and annotations",
        make_sweeprun(helperPods={"labels": OF_OURS}),
        make_sweeprun(helperPods={"labels": OF_THEIRS}),
    ),
    Attack(
        "containers that are no list",
        "resulted in error",
        make_sweeprun(template=make_template(pod={"spec": {"containers": {"name": "pytorch"}}})),
        make_sweeprun(),
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_it_is_refused_and_its_harmless_twin_is_not(attack, installed):
    dry_create(installed.team, attack.good)
    with pytest.raises(RefusedError) as refused:
        dry_create(installed.team, attack.bad)
    assert attack.words in refused.value.message


@pytest.mark.parametrize("attack", [one for one in ATTACKS if "init" not in one.bad["spec"]], ids=str)
def test_it_cannot_be_edited_in_either(attack, installed):
    there = {**make_sweeprun(), "metadata": {"name": "there"}}
    installed.team.ensure(there)
    raw = installed.team.get("SweepRun", "there")
    template = attack.bad["spec"].get("template")
    helper = attack.bad["spec"].get("helperPods", {})
    changed = with_value(with_value(raw, "spec.template", template), "spec.helperPods", helper)
    with pytest.raises(RefusedError, match=attack.words):
        installed.team.call("PUT", installed.team._path("SweepRun", "there"), json=changed, params={"dryRun": "All"})


def test_a_namespace_that_is_not_served_is_left_alone(installed, cluster):
    dry_create(cluster, training(hostNetwork=True))


def test_the_operators_own_account_is_not_for_runs(installed):
    dry_create(installed.team, training(serviceAccountName="trainer"))
    with pytest.raises(RefusedError, match="operator's own service account"):
        dry_create(installed.system, training(serviceAccountName="sweeprun"))


def test_who_may_make_what_a_run_makes_may_make_runs(installed, person):
    ann = person("ann", *WORKLOADS)
    ann.create({**make_sweeprun(), "metadata": {"name": "anns"}})
    ann.patch("SweepRun", "anns", {"spec": {"suspend": True}})


@pytest.mark.parametrize("lacking", range(3))
def test_who_may_not_make_what_a_run_makes_cannot_have_it_made(installed, person, lacking):
    group, kind = WORKLOADS[lacking]
    name = f"bob-{kind}"
    bob = person(name, *(one for one in WORKLOADS if one != (group, kind)))
    with pytest.raises(RefusedError) as refused:
        bob.create({**make_sweeprun(), "metadata": {"name": name}})
    assert refused.value.code == 403
    assert f"{name} may not create {kind} in namespace {installed.team.namespace}" in refused.value.message


def test_a_run_of_somebody_else_cannot_be_changed_into_another(installed, person):
    installed.team.ensure({**make_sweeprun(), "metadata": {"name": "carls"}})
    eve = person("eve")
    with pytest.raises(RefusedError, match="eve may not create pytorchjobs"):
        eve.patch("SweepRun", "carls", {"spec": {"suspend": True}})
    eve.patch("SweepRun", "carls", {"metadata": {"labels": {"seen-by": "eve"}}})


def test_rights_elsewhere_do_not_count(installed, person, cluster):
    mallory = person("mallory", *WORKLOADS, cluster=cluster)
    there = person("mallory", cluster=installed.team)
    mallory.create(make_sweeprun())
    with pytest.raises(RefusedError, match="mallory may not create"):
        there.create({**make_sweeprun(), "metadata": {"name": "mallorys"}})
