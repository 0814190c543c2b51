"""A node of the kind cluster as the machine that it stands for: it freezes, loses power, is forgotten, comes back."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.cluster import Cluster, Raw, eventually

HACK = Path(__file__).parents[2] / "hack"
MORTAL = "sweeprun.test/mortal"
"""Label and taint of the node that stories may lose; hack/kind.yaml."""
MAINTENANCE = "sweeprun.test/maintenance"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


def programs(cluster: Cluster) -> dict[str, str]:
    """The environment in which kubectl and docker are found, and speak of this cluster."""
    cache = cluster.kubeconfig.parent
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{cache / 'bin'}:{cache / 'docker' / 'root' / 'usr' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(cache),  # kubectl keeps a cache there
        "SWEEPRUN_CACHE": str(cache.parent),
    }


def execute(cluster: Cluster, *command: str, timeout: float = 120) -> str:
    """Run a program to its end; an error shows what it said."""
    done = subprocess.run(command, env=programs(cluster), capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def follow(cluster: Cluster, advice: str) -> None:
    """Do what the condition `Stuck` says that an administrator can do."""
    _, marker, command = advice.partition("kubectl taint ")
    execute(cluster, *shlex.split(marker + command))


@dataclass(frozen=True)
class Node:
    cluster: Cluster
    name: str

    @staticmethod
    def mortal(cluster: Cluster) -> Node:
        found = cluster.list("Node", selector=MORTAL)
        assert len(found) == 1, "no node for these stories: make e2e-down, make e2e-up"
        return Node(cluster=cluster, name=found[0]["metadata"]["name"])

    @property
    def ready(self) -> str:
        """True, False, or Unknown where the node does not answer; Gone without its object."""
        found = self.cluster.get("Node", self.name)
        if found is None:
            return "Gone"
        conditions = found.get("status", {}).get("conditions", [])
        return next((str(item["status"]) for item in conditions if item["type"] == "Ready"), "Unknown")

    def wait_ready(self, status: str, *, timeout: float = 120) -> None:
        eventually(lambda: self.ready == status, f"{self.name} is Ready={status}", timeout=timeout)

    def freeze(self) -> None:
        """Everything on it stands still, its connections stay open; nobody is told."""
        self._docker("pause", self.name)

    def thaw(self) -> None:
        self._docker("unpause", self.name)

    def cut_power(self) -> None:
        self._docker("kill", self.name)

    def restore(self) -> None:
        """As it was, whatever was done to it."""
        state = self._docker("inspect", "-f", "{{.State.Status}}", self.name).strip()
        if state == "paused":
            self.thaw()
        elif state != "running":
            self._docker("start", self.name)
        if self.cluster.get("Node", self.name) is None:
            # a kubelet registers its node when it starts, and never again; the new one has another range for its pods
            self._docker("exec", self.name, "systemctl", "restart", "kubelet")
            eventually(lambda: self._pod_range, f"{self.name} has registered again", timeout=120)
            execute(self.cluster, str(HACK / "cluster.sh"), "network")
        for key in (MAINTENANCE, OUT_OF_SERVICE):
            self.untaint(key)
        self.wait_ready("True")

    @property
    def _pod_range(self) -> str | None:
        found: Raw = self.cluster.get("Node", self.name) or {}
        return found.get("spec", {}).get("podCIDR")

    def taint(self, key: str, *, effect: str) -> None:
        execute(self.cluster, "kubectl", "taint", "node", self.name, "--overwrite", f"{key}=story:{effect}")

    def untaint(self, key: str) -> None:
        found: Raw = self.cluster.get("Node", self.name) or {}
        if any(taint["key"] == key for taint in found.get("spec", {}).get("taints", [])):
            execute(self.cluster, "kubectl", "taint", "node", self.name, f"{key}-")

    def forget(self) -> None:
        """Delete its Node object, as a cloud's controller or an admin does; what runs there is not asked."""
        self.cluster.delete("Node", self.name)

    def _docker(self, *arguments: str) -> str:
        return execute(self.cluster, "docker", *arguments)


def attract(replica: Raw) -> None:
    """Let the pods of a replica run on the mortal node as long as it is there, and elsewhere afterwards."""
    pod = replica["template"]["spec"]
    pod["tolerations"] = [{"key": MORTAL, "operator": "Exists", "effect": "NoSchedule"}]
    term = {"matchExpressions": [{"key": MORTAL, "operator": "Exists"}]}
    pod.setdefault("affinity", {})["nodeAffinity"] = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]
    }
