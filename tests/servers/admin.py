"""The calls of Pulsar's admin REST API that tests need. The real broker and LocalPulsar both
answer them."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote


class AdminError(RuntimeError):
    """The admin API refused a call.

    Args:
        status: the HTTP status.
        reason: what the broker says, as text.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.reason}"


def topic_path(topic: str) -> str:
    """`persistent://tenant/namespace/name` as the admin API's and the WebSocket API's URLs have
    it: `persistent/tenant/namespace/name`, with the name quoted."""
    domain, _, rest = topic.partition("://")
    tenant, namespace, name = rest.split("/", 2)
    return f"{domain}/{tenant}/{namespace}/{quote(name, safe='')}"


class PulsarAdmin:
    """A small admin client.

    Args:
        http_url: the base URL of the broker's web service.
        token: sent as a bearer token when given.
        context: the TLS context for https.
        timeout: seconds that one call may take.

    Every call raises `AdminError` when the broker refuses it, and `OSError` when it cannot be
    reached.
    """

    def __init__(
        self,
        http_url: str,
        *,
        token: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.http_url = http_url.rstrip("/")
        self.timeout = timeout
        self._token = token
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def call(
        self, method: str, path: str, body: object = None, *, timeout: float | None = None
    ) -> Any:
        """One call of `/admin/v2/<path>`; the JSON of the answer, its text, or None if empty."""
        request = urllib.request.Request(
            f"{self.http_url}/admin/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=timeout or self.timeout) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                raise AdminError(error.code, error.read().decode(errors="replace")) from None
        if not text:
            return None
        try:
            return json.loads(text)
        except ValueError:
            return text

    # -- broker, tenants, namespaces ------------------------------------------------------------

    def healthy(self) -> bool:
        """Whether the broker says that it can store and read a message."""
        try:
            return bool(self.call("GET", "brokers/health", timeout=5.0) == "ok")
        except (OSError, AdminError):
            return False

    def create_tenant(self, tenant: str, *, clusters: Iterable[str] = ("standalone",)) -> None:
        """Make a tenant; one that exists is left alone."""
        self._make(f"tenants/{tenant}", {"adminRoles": [], "allowedClusters": list(clusters)})

    def create_namespace(self, namespace: str) -> None:
        """Make `tenant/namespace`; one that exists is left alone."""
        self._make(f"namespaces/{namespace}", {})

    def has_namespace(self, namespace: str) -> bool:
        """Whether `tenant/namespace` exists; False, too, while the broker does not answer."""
        tenant = namespace.partition("/")[0]
        try:
            return namespace in self.call("GET", f"namespaces/{tenant}", timeout=5.0)
        except (OSError, AdminError):
            return False

    def delete_namespace(self, namespace: str, *, force: bool = False) -> None:
        """Remove a namespace, with its topics when `force`."""
        self.call("DELETE", f"namespaces/{namespace}?force={str(force).lower()}")

    def set_namespace_deduplication(self, namespace: str, enabled: bool) -> None:
        """Switch deduplication on or off for a namespace."""
        self.call("POST", f"namespaces/{namespace}/deduplication", enabled)

    def set_backlog_quota(
        self, namespace: str, *, limit_bytes: int, policy: str = "producer_exception"
    ) -> None:
        """Bound the backlog of a namespace's topics; `policy` says what then happens."""
        self.call(
            "POST",
            f"namespaces/{namespace}/backlogQuota?backlogQuotaType=destination_storage",
            {"limitSize": limit_bytes, "limitTime": -1, "policy": policy},
        )

    def grant(self, namespace: str, role: str, actions: Iterable[str] = ("produce",)) -> None:
        """Allow a role `produce` and/or `consume` on a namespace."""
        self.call("POST", f"namespaces/{namespace}/permissions/{role}", list(actions))

    # -- topics ---------------------------------------------------------------------------------

    def topics(self, namespace: str, *, domain: str = "persistent") -> list[str]:
        """The names of a namespace's topics."""
        return list(self.call("GET", f"{domain}/{namespace}"))

    def create_topic(self, topic: str) -> None:
        """Make a topic without partitions."""
        self.call("PUT", topic_path(topic))

    def create_partitioned_topic(self, topic: str, partitions: int) -> None:
        """Make a topic with that many partitions."""
        self.call("PUT", f"{topic_path(topic)}/partitions", partitions)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has: 0 when it has none."""
        return int(self.call("GET", f"{topic_path(topic)}/partitions")["partitions"])

    def create_subscription(self, topic: str, name: str, *, position: str = "earliest") -> None:
        """Make a subscription at the topic's `earliest` or `latest` message."""
        self.call("PUT", f"{topic_path(topic)}/subscription/{quote(name, safe='')}", position)

    def terminate(self, topic: str) -> Any:
        """End a topic: nothing can be stored in it any more."""
        return self.call("POST", f"{topic_path(topic)}/terminate")

    def unload(self, topic: str) -> None:
        """Make the broker close and load the topic again: its producers are dropped."""
        self.call("PUT", f"{topic_path(topic)}/unload")

    def delete(self, topic: str, *, force: bool = True) -> None:
        """Remove a topic."""
        self.call("DELETE", f"{topic_path(topic)}?force={str(force).lower()}")

    def delete_partitioned(self, topic: str, *, force: bool = True) -> None:
        """Remove a partitioned topic."""
        self.call("DELETE", f"{topic_path(topic)}/partitions?force={str(force).lower()}")

    def stats(self, topic: str) -> Any:
        """The topic's counters: `msgInCounter`, `publishers`, `subscriptions`, …"""
        return self.call("GET", f"{topic_path(topic)}/stats")

    def internal_stats(self, topic: str) -> Any:
        """The topic's ledgers and cursors: `numberOfEntries`, `lastConfirmedEntry`, …"""
        return self.call("GET", f"{topic_path(topic)}/internalStats")

    def last_message_id(self, topic: str) -> Any:
        """The id of the last message: `ledgerId`, `entryId`, `partitionIndex`."""
        return self.call("GET", f"{topic_path(topic)}/lastMessageId")

    def set_topic_deduplication(self, topic: str, enabled: bool) -> None:
        """Switch deduplication on or off for one topic."""
        self.call("POST", f"{topic_path(topic)}/deduplicationEnabled", enabled)

    def _make(self, path: str, body: object) -> None:
        try:
            self.call("PUT", path, body)
        except AdminError as error:
            if error.status != 409:
                raise
