"""The way to the API server, the same for calls and watches: address, certificates, a token that rotates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client, config
from kubernetes.aio.client.rest import RESTClientObject

from .gateway import GatewayError


async def configure(kubeconfig: str | None) -> Any:
    """The pod's service account; else, or where `kubeconfig` names a file, that file's current context.

    The server's address comes from the kubelet's environment, so that no name service is needed. Raises GatewayError
    where neither is to be had.
    """
    configuration = client.Configuration()
    # Else the environment and a netrc file are looked through for every request, each time in a thread; the watches do
    # without, too. A proxy stands in the kubeconfig.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        if kubeconfig is not None:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise GatewayError(f"no way to the API server: {error}") from error
    return configuration


@dataclass(frozen=True, slots=True)
class Connection:
    server: str
    tls: ssl.SSLContext
    proxy: str | None
    _configuration: Any

    @staticmethod
    async def open(kubeconfig: str | None) -> Connection:
        """Raises GatewayError."""
        configuration = await configure(kubeconfig)
        try:
            rest = RESTClientObject(configuration)
        except (OSError, ValueError) as error:
            raise GatewayError(f"the certificates for the API server cannot be read: {error}") from error
        return Connection(configuration.host, rest.ssl_context, rest.proxy, configuration)

    async def authorization(self) -> str | None:
        """The header's value as it is now: a service account's token is read again every minute."""
        return await authorization(self._configuration)


async def authorization(configuration: Any) -> str | None:
    found: str | None = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return found
