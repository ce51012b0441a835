"""Where the configuration of a test's cluster says how Pulsar is reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery_stargate import ConfigurationError

__all__ = ["PULSAR_CLUSTER_CONFIG", "pulsar_addresses"]

#: The entry of `celery_worker_cluster_config`; the fixture that gives its value has this name too.
PULSAR_CLUSTER_CONFIG = "pulsar_cluster_config"


def pulsar_addresses(celery_worker_cluster_config: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """Return the URLs of the Pulsar cluster: ``urls`` for containers, ``host_urls`` for the test.

    Args:
        celery_worker_cluster_config: what the fixture of that name gives.

    Raises:
        celery_stargate.ConfigurationError: it names no Pulsar cluster.
    """
    found = celery_worker_cluster_config.get(PULSAR_CLUSTER_CONFIG)
    if not found:
        raise ConfigurationError(
            f"celery_worker_cluster_config has no {PULSAR_CLUSTER_CONFIG!r}; where you override "
            f"that fixture, add the value of the fixture {PULSAR_CLUSTER_CONFIG}"
        )
    addresses: Mapping[str, list[str]] = found
    return addresses
