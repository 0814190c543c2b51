"""The chart gives the operator what it calls and nothing else, in a pod as strict as pods get."""

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from support.helm import CHART, ChartError, lint, render
from support.promql import DASHBOARDS, alerts, rules
from support.rights import granted
from sweeprun_operator.settings import PREFIX, Settings


def of_kind(objects, kind, name=None):
    found = [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    assert found, f"no {kind} {name or ''}"
    return found


def verbs(group, resource, text):
    return {(group, resource, verb) for verb in text.split()}


PROGRESS_PORT = Settings.read(
    {f"{PREFIX}{name}": "x" for name in ("IMAGE", "LEASE_NAMESPACE", "NAMESPACES")}
).progress_port
WHERE_RUNS_ARE = (
    verbs("sweeprun.dev", "sweepruns", "get list watch delete")
    | verbs("sweeprun.dev", "sweepruns/status", "update")
    | verbs("sweeprun.dev", "sweepruns/finalizers", "update")
    | verbs("kubeflow.org", "pytorchjobs", "get list watch create delete")
    | verbs("batch", "jobs", "get list watch create delete")
    | verbs("", "pods", "list watch delete create")
    | verbs("", "persistentvolumeclaims", "get")
    | verbs("", "events", "create")
)
"""What cluster/kubernetes_gateway.py and the watches call; the integration tests run the operator with this."""


def container_of(objects):
    (container,) = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"]
    return container


def environment_of(objects):
    return {one["name"]: one.get("value", "from the pod") for one in container_of(objects)["env"]}


def test_helm_finds_nothing_to_say():
    lint()


def test_by_default_it_serves_its_own_namespace():
    objects = render()
    assert environment_of(objects)["SWEEPRUN_OPERATOR_NAMESPACES"] == "sweeprun-system"
    roles = of_kind(objects, "Role", "sweeprun-system:sweeprun")
    assert [role["metadata"]["namespace"] for role in roles] == ["sweeprun-system"]


def test_each_watched_namespace_gets_a_role_and_nothing_more():
    objects = render("watch.namespaces={a,b}")
    assert environment_of(objects)["SWEEPRUN_OPERATOR_NAMESPACES"] == "a,b"
    for kind in ("Role", "RoleBinding"):
        found = of_kind(objects, kind, "sweeprun-system:sweeprun")
        assert [one["metadata"]["namespace"] for one in found] == ["a", "b"]
    for role in of_kind(objects, "Role", "sweeprun-system:sweeprun"):
        assert granted(role["rules"]) == WHERE_RUNS_ARE


def test_without_a_choice_of_all_namespaces_nothing_is_granted_on_the_cluster_but_two_facts():
    objects = render("watch.namespaces={a}")
    bound = {one["roleRef"]["name"] for one in of_kind(objects, "ClusterRoleBinding")}
    assert bound == {"sweeprun-system:sweeprun:facts"}
    (facts,) = of_kind(objects, "ClusterRole", "sweeprun-system:sweeprun:facts")
    namespaces, nodes = facts["rules"]
    assert namespaces == {
        "apiGroups": [""],
        "resources": ["namespaces"],
        "resourceNames": ["kube-system"],
        "verbs": ["get"],
    }
    assert nodes == {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}


def test_all_namespaces_by_choice():
    objects = render("watch.allNamespaces=true")
    assert environment_of(objects)["SWEEPRUN_OPERATOR_NAMESPACES"] == "*"
    (role,) = of_kind(objects, "ClusterRole", "sweeprun-system:sweeprun")
    assert granted(role["rules"]) == WHERE_RUNS_ARE
    assert [one["metadata"]["name"] for one in objects if one["kind"] == "Role"] == ["sweeprun-lease"]


def test_the_lease_is_the_only_one_it_may_touch():
    objects = render()
    (role,) = of_kind(objects, "Role", "sweeprun-lease")
    making, keeping = role["rules"]
    assert making["verbs"] == ["create"]
    assert (keeping["verbs"], keeping["resourceNames"]) == (["get", "update"], ["sweeprun"])
    assert environment_of(objects)["SWEEPRUN_OPERATOR_LEASE_NAME"] == "sweeprun"


@pytest.mark.parametrize("choice", ["watch.namespaces={a}", "watch.allNamespaces=true"])
def test_the_operator_never_sees_secrets_nor_enters_pods(choice):
    objects = render(choice)
    everything = set()
    for one in objects:
        if one["kind"] in ("Role", "ClusterRole"):
            everything |= granted(one["rules"])
    resources = {resource for _, resource, _ in everything}
    assert not resources & {"secrets", "pods/exec", "pods/log", "*", "serviceaccounts/token"}
    assert not {verb for *_, verb in everything} & {"*", "escalate", "bind", "impersonate"}


def test_people_get_roles_by_aggregation():
    objects = render()
    viewer, editor = (
        of_kind(objects, "ClusterRole", f"sweeprun-system:sweeprun:{who}")[0] for who in ("viewer", "editor")
    )
    assert viewer["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert {verb for *_, verb in granted(viewer["rules"])} == {"get", "list", "watch"}
    assert editor["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert ("sweeprun.dev", "sweepruns/status", "update") not in granted(editor["rules"])


def test_every_setting_of_the_deployment_is_one_that_the_operator_reads():
    environment = environment_of(render("watch.namespaces={a}"))
    settings = Settings.read(environment)
    assert settings.namespaces == ("a",)
    assert (settings.health_port, settings.metrics_port) == (8080, 8081)
    documented = re.findall(rf"{PREFIX}[A-Z_]+", Path(inspect.getfile(Settings)).read_text())
    assert set(environment) <= set(documented)


def test_the_charts_defaults_are_the_operators_own():
    environment = environment_of(render())
    of_the_place = {f"{PREFIX}{name}" for name in ("IMAGE", "NAMESPACES", "LEASE_NAMESPACE", "LEASE_NAME", "POD_NAME")}
    least = {name: value for name, value in environment.items() if name in of_the_place}
    assert len(environment) > len(least)
    assert Settings.read(environment) == Settings.read(least)


def test_the_pod_is_as_strict_as_pods_get():
    objects = render()
    pod = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]
    container = container_of(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "limits" in container["resources"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)


def test_two_operators_never_overlap():
    (deployment,) = of_kind(render(), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("sets", "image"),
    [
        ([], "sweeprun/operator:0.1.0"),
        (["image.tag=dev"], "sweeprun/operator:dev"),
        (["image.registry=registry.example:5000"], "registry.example:5000/sweeprun/operator:0.1.0"),
        (["image.registry=", "image.digest=sha256:" + "a" * 64], "sweeprun/operator@sha256:" + "a" * 64),
    ],
)
def test_prepare_uses_the_operators_own_image(sets, image):
    objects = render(*sets)
    assert container_of(objects)["image"] == image
    assert environment_of(objects)["SWEEPRUN_OPERATOR_IMAGE"] == image


@pytest.mark.parametrize(
    "wrong",
    [
        "image.repo=x",
        "watch.namespace=a",
        "watch.namespaces={UPPER}",
        "operator.workers=0",
        "operator.logFormat=xml",
        "replicas=2",
        "image.digest=sha256:short",
        "admission.policies=true",
        "admission.serviceAccounts={Upper}",
        "networkPolicy.operator.apiServerPorts={0}",
        "networkPolicy.runs.progressFrom[0].pods=all",
        "metrics.rules.runbookUrl=ftp://x/",
        "metrics.rules.runbookUrl=https://x/runbooks",
    ],
)
def test_values_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ChartError, match="values don't meet the specifications"):
        render(wrong)


def test_namespaces_and_all_of_them_are_not_asked_for_together():
    with pytest.raises(ChartError, match="watch"):
        render("watch.namespaces={a}", "watch.allNamespaces=true")


def test_the_schema_closes_every_object_that_is_ours():
    schema = json.loads((CHART / "values.schema.json").read_text())
    pending, opaque = [("", schema)], set()
    while pending:
        path, node = pending.pop()
        if node.get("type") == "object" and node.get("additionalProperties") is not False:
            opaque.add(path)
        pending += [(f"{path}.{name}", child) for name, child in node.get("properties", {}).items()]
    freeform = {"resources", "affinity", "global", "nodeSelector", "podLabels", "podAnnotations"}
    freeform |= {"serviceAccount.annotations", "metrics.service.annotations", "metrics.serviceMonitor.labels"}
    freeform |= {"metrics.rules.labels", "metrics.dashboards.labels", "metrics.dashboards.annotations"}
    assert opaque == {f".{name}" for name in freeform}


def test_every_value_has_a_place_in_the_schema_and_the_other_way_round():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    pending = [("", schema, values)]
    while pending:
        path, node, value = pending.pop()
        if node.get("additionalProperties") is False and isinstance(value, dict):
            assert set(node["properties"]) - {"global"} == set(value), path
            pending += [(f"{path}.{name}", node["properties"][name], value[name]) for name in value]


def policy(*sets):
    (found,) = of_kind(render(*sets), "ValidatingAdmissionPolicy")
    return found["spec"]


def test_policies_judge_where_runs_are_served_and_fail_closed():
    objects = render("watch.namespaces={a,b}")
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    (expression,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
    assert (expression["operator"], expression["values"]) == ("In", ["a", "b"])
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert policy()["failurePolicy"] == "Fail"
    (everywhere,) = of_kind(render("watch.allNamespaces=true"), "ValidatingAdmissionPolicyBinding")
    assert "matchResources" not in everywhere["spec"]


def test_policies_are_a_choice():
    kinds = {one["kind"] for one in render("admission.enabled=false")}
    assert not {kind for kind in kinds if kind.startswith("ValidatingAdmission")}
    assert "hostPath" in json.dumps(policy())
    assert "hostPath" not in json.dumps(policy("admission.allowHostAccess=true"))
    assert "is not one of" not in json.dumps(policy())
    assert "is not one of default, a" in json.dumps(policy("admission.serviceAccounts={a}"))


def test_network_policies_bound_the_operator_and_the_progress_port_by_choice():
    assert not [one for one in render() if one["kind"] == "NetworkPolicy"]
    (own,) = of_kind(render("networkPolicy.operator.enabled=true"), "NetworkPolicy")
    assert own["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (deployment,) = of_kind(render(), "Deployment")
    chosen = own["spec"]["podSelector"]["matchLabels"].items()
    assert chosen <= deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = [port["port"] for rule in own["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 443, 6443, PROGRESS_PORT]
    found = of_kind(render("networkPolicy.runs.enabled=true", "watch.namespaces={a,b}"), "NetworkPolicy")
    assert [one["metadata"]["namespace"] for one in found] == ["a", "a", "b", "b"]


def test_every_port_of_training_pods_but_one_is_left_as_it_was():
    training, prepare, *_ = of_kind(render("networkPolicy.runs.enabled=true"), "NetworkPolicy")
    free, bound = training["spec"]["ingress"]
    assert "from" not in free
    tcp = [range(one["port"], one["endPort"] + 1) for one in free["ports"] if one["protocol"] == "TCP"]
    assert set(range(1, 65536)) - {port for ports in tcp for port in ports} == {PROGRESS_PORT}
    assert [one["port"] for one in bound["ports"]] == [PROGRESS_PORT]
    (operator,) = bound["from"]
    assert set(operator) == {"namespaceSelector", "podSelector"}
    assert "ingress" not in prepare["spec"]
    assert "egress" not in prepare["spec"]


def test_policies_for_namespaces_that_are_not_listed_are_refused():
    with pytest.raises(ChartError, match="no list of them"):
        render("networkPolicy.runs.enabled=true", "watch.allNamespaces=true")


def test_nothing_of_the_chart_can_block_a_drain():
    everything = [
        *("metrics.serviceMonitor.enabled=true", "metrics.rules.enabled=true", "metrics.dashboards.enabled=true"),
        *("networkPolicy.operator.enabled=true", "networkPolicy.runs.enabled=true"),
    ]
    assert "PodDisruptionBudget" not in {one["kind"] for one in render(*everything)}


def test_rules_come_from_their_files_and_name_their_runbooks():
    (plain,) = of_kind(render("metrics.rules.enabled=true", "metrics.rules.labels.team=ml"), "PrometheusRule")
    assert plain["metadata"]["labels"]["team"] == "ml"
    rendered = [rule for group in plain["spec"]["groups"] for rule in group["rules"]]
    assert rendered == rules()
    (told,) = of_kind(
        render("metrics.rules.enabled=true", "metrics.rules.runbookUrl=https://example.test/"), "PrometheusRule"
    )
    urls = [
        (rule["alert"], rule["annotations"]["runbook_url"])
        for group in told["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert urls == [(alert["alert"], f"https://example.test/{alert['alert']}.md") for alert in alerts()]


def test_dashboards_come_from_their_files():
    (configured,) = of_kind(render("metrics.dashboards.enabled=true"), "ConfigMap")
    assert configured["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: json.loads(text) for name, text in configured["data"].items()} == {
        path.name: json.loads(path.read_text()) for path in DASHBOARDS.glob("*.json")
    }


def test_metrics_are_published_by_choice():
    assert not [one for one in render() if one["kind"] in ("Service", "ServiceMonitor")]
    objects = render("metrics.serviceMonitor.enabled=true")
    (service,) = of_kind(objects, "Service")
    (monitor,) = of_kind(objects, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
