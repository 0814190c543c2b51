"""Which cluster is meant: a kubeconfig as kubectl takes it, or the service account of the pod that this runs in."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import client, config

from sweeprun_cli.exits import CommandError, Exit

DEFAULT_NAMESPACE = "default"
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MALFORMED = (config.ConfigException, OSError, KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, slots=True)
class Place:
    """What the options name."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None


@dataclass(frozen=True, slots=True)
class Access:
    configuration: Any
    namespace: str
    """Of the option, else of the context, else `default`."""
    source: str
    """For messages: where it was read."""


async def find_access(place: Place, environment: Mapping[str, str] = os.environ) -> Access:
    """Raises CommandError: USAGE for what the options name wrongly, NO_CLUSTER where there is nothing to use."""
    files, source = _files(place, environment)
    configuration = client.Configuration()
    if not files and environment.get("KUBERNETES_SERVICE_HOST") and place.context is None:
        return _in_cluster(place, configuration)
    if not files:
        raise CommandError(
            Exit.NO_CLUSTER,
            f"no cluster: {source} is not there. Name a file with --kubeconfig or KUBECONFIG; `sweeprun local run` and "
            "`sweeprun inspect DIR` need no cluster",
        )
    # the library warns about what is explained here, and its messages may quote the file
    logging.getLogger("kubernetes").setLevel(logging.CRITICAL)
    try:
        loader = await config.load_kube_config(
            config_file=os.pathsep.join(files),
            context=place.context,
            client_configuration=configuration,
            persist_config=False,
        )
        found = loader.current_context["context"].get("namespace")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise CommandError(Exit.NO_CLUSTER, f"no cluster: {source} is no valid YAML{where}") from None
    except _MALFORMED as error:
        said = str(error) if isinstance(error, (config.ConfigException, OSError)) else "it has not the expected shape"
        asked = f" with --context {place.context}" if place.context is not None else ""
        code = Exit.USAGE if place.context is not None else Exit.NO_CLUSTER
        raise CommandError(code, f"no cluster: {source}{asked} cannot be used: {said}") from None
    return Access(configuration, place.namespace or found or DEFAULT_NAMESPACE, source)


def _files(place: Place, environment: Mapping[str, str]) -> tuple[list[str], str]:
    """The kubeconfigs that are there, and what to call them."""
    if place.kubeconfig is not None:
        if not place.kubeconfig.is_file():
            raise CommandError(Exit.USAGE, f"--kubeconfig {place.kubeconfig} is no file")
        return [str(place.kubeconfig)], f"kubeconfig {place.kubeconfig}"
    named = environment.get("KUBECONFIG")
    if named:
        paths = [Path(path).expanduser() for path in named.split(os.pathsep) if path]
        return [str(path) for path in paths if path.is_file()], f"kubeconfig {named} (of KUBECONFIG)"
    usual = Path(environment.get("HOME") or "~").expanduser() / ".kube" / "config"
    return [str(usual)] if usual.is_file() else [], f"kubeconfig {usual}"


def _in_cluster(place: Place, configuration: Any) -> Access:
    try:
        config.load_incluster_config(client_configuration=configuration)
        own = _ACCOUNT_NAMESPACE.read_text().strip()
    except (config.ConfigException, OSError) as error:
        raise CommandError(Exit.NO_CLUSTER, f"no cluster: this pod's service account cannot be used: {error}") from None
    return Access(configuration, place.namespace or own or DEFAULT_NAMESPACE, "this pod's service account")
