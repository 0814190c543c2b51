"""A cluster as the tests see it: plain dicts over HTTP, and conditions that are waited for, never slept for."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

Raw = dict[str, Any]
T = TypeVar("T")

PATHS = {
    "Namespace": "/api/v1/namespaces",
    "Node": "/api/v1/nodes",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "PersistentVolume": "/api/v1/persistentvolumes",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Event": "/api/v1/namespaces/{namespace}/events",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "PersistentVolumeClaim": "/api/v1/namespaces/{namespace}/persistentvolumeclaims",
    "LimitRange": "/api/v1/namespaces/{namespace}/limitranges",
    "ResourceQuota": "/api/v1/namespaces/{namespace}/resourcequotas",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "PriorityClass": "/apis/scheduling.k8s.io/v1/priorityclasses",
    "PyTorchJob": "/apis/kubeflow.org/v1/namespaces/{namespace}/pytorchjobs",
    "SweepRun": "/apis/sweeprun.dev/v1alpha1/namespaces/{namespace}/sweepruns",
}


class RefusedError(Exception):
    """The API server refused a request; carries its own message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class TimedOutError(AssertionError):
    """A condition did not become true in time; the message shows what was seen last."""


def eventually(look: Callable[[], T | None], what: str, *, timeout: float, every: float = 0.25) -> T:
    """The first truthy value that `look` gives; polls, because the conditions here span several objects."""
    deadline = time.monotonic() + timeout
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOutError(f"not within {timeout:.0f} s: {what}")
        time.sleep(every)


@dataclass(frozen=True)
class Cluster:
    """One API server and the namespace that a test works in."""

    url: str
    session: requests.Session
    kubeconfig: Path
    namespace: str

    @staticmethod
    def connect(kubeconfig: Path, *, namespace: str) -> Cluster:
        config = yaml.safe_load(kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        session = requests.Session()
        session.trust_env = False
        if "certificate-authority-data" in server:
            session.verify = _file(server["certificate-authority-data"])
        if "client-certificate-data" in user:
            session.cert = (_file(user["client-certificate-data"]), _file(user["client-key-data"]))
        if "token" in user:
            session.headers["Authorization"] = f"Bearer {user['token']}"
        return Cluster(url=server["server"], session=session, kubeconfig=kubeconfig, namespace=namespace)

    def in_namespace(self, namespace: str) -> Cluster:
        return replace(self, namespace=namespace)

    def call(self, method: str, path: str, **arguments: Any) -> Raw:
        answer = self.session.request(method, self.url + path, timeout=30, **arguments)
        if answer.status_code >= 400:
            try:
                message = answer.json().get("message", answer.text)
            except ValueError:
                message = answer.text
            raise RefusedError(answer.status_code, message)
        return answer.json()  # type: ignore[no-any-return]

    def _path(self, kind: str, name: str = "") -> str:
        path = PATHS[kind].format(namespace=self.namespace)
        return f"{path}/{name}" if name else path

    def get(self, kind: str, name: str) -> Raw | None:
        try:
            return self.call("GET", self._path(kind, name))
        except RefusedError as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, kind: str, *, selector: str = "") -> list[Raw]:
        items: list[Raw] = self.call("GET", self._path(kind), params={"labelSelector": selector})["items"]
        return items

    def create(self, manifest: Raw, *, dry_run: bool = False) -> Raw:
        """With `dry_run` the server says what it would do; an unknown field is refused then, as kubectl has it."""
        parameters = {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else {}
        return self.call("POST", self._path(manifest["kind"]), json=manifest, params=parameters)

    def ensure(self, manifest: Raw) -> None:
        """Create; an object that is there already is left as it is."""
        try:
            self.create(manifest)
        except RefusedError as refused:
            if refused.code != 409:
                raise

    def delete(self, kind: str, name: str, *, grace: int | None = None, uid: str | None = None) -> None:
        """What is gone already is deleted. `uid`: that object, and none that has taken its name since."""
        options: Raw = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self.call("DELETE", self._path(kind, name), json=options)
        except RefusedError as refused:
            if refused.code != 404 and not (refused.code == 409 and uid is not None):
                raise

    def patch(self, kind: str, name: str, body: Raw, *, subresource: str = "") -> Raw:
        return self.call(
            "PATCH",
            self._path(kind, name) + subresource,
            data=json.dumps(body),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def evict(self, pod: str) -> None:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        self.call("POST", self._path("Pod", pod) + "/eviction", json=body)

    def proxy(self, service: str, port: int, path: str) -> Raw:
        """GET through the API server to a service, so that the tests need no route into the cluster."""
        return self.call("GET", f"{self._path('Service')}/{service}:{port}/proxy{path}")

    def log(self, pod: str, container: str) -> str:
        """Of the container that runs now; empty before it has one."""
        path = f"{self.url}{self._path('Pod', pod)}/log"
        answer = self.session.get(path, params={"container": container}, timeout=30)
        return answer.text if answer.status_code == 200 else ""

    def events_of(self, name: str) -> Iterator[Raw]:
        for event in self.list("Event"):
            if event["involvedObject"].get("name") == name and event["involvedObject"].get("kind") == "SweepRun":
                yield event


def _file(data: str) -> str:
    with tempfile.NamedTemporaryFile(delete=False, suffix=".pem") as file:
        file.write(base64.b64decode(data))
    return file.name
