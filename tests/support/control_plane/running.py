"""Starts both processes on free loopback ports and says how to reach them."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml

from support.cluster import Cluster, eventually
from support.ports import HOST, free_ports

from .definitions import install
from .programs import Process

START_SECONDS = 120


@dataclass(frozen=True)
class ControlPlane:
    url: str
    token: str
    """Of a member of system:masters."""
    certificate: Path
    """What the API server's certificate is checked against."""
    kubeconfig: Path
    etcd: Process
    server: Process

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """After a process was started again."""
        _wait_ready(self.url, self.certificate, self.token, (self.etcd, self.server), seconds)

    def cluster(self, namespace: str = "default") -> Cluster:
        """A client of its own for each caller: requests' sessions are not for several threads."""
        return Cluster.connect(self.kubeconfig, namespace=namespace)

    def new_namespace(self, prefix: str = "test") -> Cluster:
        """A client in a namespace that nobody else uses. It stays: no controller would finish its deletion."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        cluster = self.cluster(name)
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return cluster


@contextlib.contextmanager
def running(*, start_seconds: float = START_SECONDS) -> Iterator[ControlPlane]:
    """etcd and kube-apiserver with our CRD and the PyTorchJob's.

    Raises ControlPlaneError where a program is missing or does not start.
    """
    with tempfile.TemporaryDirectory(prefix="sweeprun-control-plane-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        # Ports are free until somebody takes them: one starter at a time, until both listen.
        with _starting():
            etcd_port, peer_port, api_port = free_ports(3)
            etcd = _etcd(directory, etcd_port, peer_port)
            stack.callback(etcd.stop)
            token = secrets.token_hex(16)
            server = _kube_apiserver(directory, api_port, etcd_port, token)
            stack.callback(server.stop)
            _wait_ready(f"https://{HOST}:{api_port}", directory / "apiserver.crt", token, (etcd, server), start_seconds)
        plane = _describe(directory, f"https://{HOST}:{api_port}", token, etcd, server)
        install(plane.cluster())
        yield plane


def _etcd(directory: Path, port: int, peer_port: int) -> Process:
    return Process(
        "etcd",
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls=http://{HOST}:{port}",
        f"--advertise-client-urls=http://{HOST}:{port}",
        f"--listen-peer-urls=http://{HOST}:{peer_port}",
        f"--initial-advertise-peer-urls=http://{HOST}:{peer_port}",
        f"--initial-cluster=default=http://{HOST}:{peer_port}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        directory=directory,
    )


def _kube_apiserver(directory: Path, port: int, etcd_port: int, token: str) -> Process:
    tokens = directory / "tokens.csv"
    tokens.touch(mode=0o600)
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    # The server makes a certificate and a key in --cert-dir before it reads the key for service account tokens: the
    # same key serves for both, and no tool for keys is needed.
    key = directory / "apiserver.key"
    return Process(
        "kube-apiserver",
        f"--etcd-servers=http://{HOST}:{etcd_port}",
        f"--bind-address={HOST}",
        f"--advertise-address={HOST}",
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://sweeprun.test",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        # No controller makes the service accounts that this plugin would ask of every pod.
        "--disable-admission-plugins=ServiceAccount",
        # Load on a test machine must not turn into 429s that a test did not ask for.
        "--enable-priority-and-fairness=false",
        "--allow-privileged=true",
        directory=directory,
    )


def _wait_ready(url: str, certificate: Path, token: str, processes: tuple[Process, ...], seconds: float) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {token}"

        def ready() -> bool:
            for process in processes:
                process.check()
            if not certificate.exists():
                return False
            try:
                return session.get(f"{url}/readyz", verify=str(certificate), timeout=5).ok
            except (requests.ConnectionError, requests.Timeout, OSError):  # OSError: the certificate is half written
                return False

        try:
            eventually(ready, "kube-apiserver is ready", timeout=seconds, every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{processes[-1].tail()}") from None


def _describe(directory: Path, url: str, token: str, etcd: Process, server: Process) -> ControlPlane:
    certificate = directory / "apiserver.crt"
    authority = base64.b64encode(certificate.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
    kubeconfig = directory / "kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(yaml.safe_dump(config))
    return ControlPlane(url=url, token=token, certificate=certificate, kubeconfig=kubeconfig, etcd=etcd, server=server)


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    path = Path(tempfile.gettempdir()) / "sweeprun-control-plane.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
