"""The part of the admin REST API that tests need, over the stand-in's topics."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from celery_stargate.testing.local_pulsar.consuming import Subscription, subscription
from celery_stargate.testing.local_pulsar.message_id import MessageId
from celery_stargate.testing.local_pulsar.refusal import page, phrase
from celery_stargate.testing.local_pulsar.tokens import Tokens
from celery_stargate.testing.local_pulsar.topics import Cluster, Topic, TopicError

_Parts = list[str]


class Admin:
    """Answers calls below `/admin/v2`.

    Args:
        cluster: what they are about.
        tokens: who may call: super users only.
    """

    def __init__(self, cluster: Cluster, tokens: Tokens) -> None:
        self._cluster = cluster
        self._tokens = tokens

    def call(self, method: str, target: str, authorization: str | None, body: bytes) -> bytes:
        """One call: the whole HTTP answer."""
        split = urlsplit(target)
        role = self._tokens.role(authorization, None)
        if self._tokens.required and role is None:
            text = page(401, "Authentication required", split.path)
            return _answer(401, text, "text/html;charset=iso-8859-1")
        try:
            if not self._tokens.superuser(role):
                raise TopicError(403, "Unauthorized to validate operation")
            parts = [unquote(part) for part in split.path.strip("/").split("/")]
            if parts[:2] != ["admin", "v2"]:
                raise TopicError(404, "Not Found")
            value = msgspec.json.decode(body) if body else None
            query = {name: values[-1] for name, values in parse_qs(split.query).items()}
            result = self._route(method, parts[2:], query, value)
        except TopicError as error:
            return _answer(error.status, msgspec.json.encode({"reason": error.reason}))
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            return _answer(400, msgspec.json.encode({"reason": str(error)}))
        if result is None:
            return _answer(204, b"")
        return _answer(200, result if isinstance(result, bytes) else msgspec.json.encode(result))

    def _route(self, method: str, parts: _Parts, query: dict[str, str], value: Any) -> Any:
        match (method, *parts):
            case ("GET", "brokers", "health"):
                return b"ok"
            case ("PUT", "tenants", tenant):
                if tenant in self._cluster.tenants:
                    raise TopicError(409, "Tenant already exists")
                self._cluster.tenants.add(tenant)
                return None
            case (_, "namespaces", tenant, name, *rest):
                return self._namespace(method, f"{tenant}/{name}", rest, value)
            case ("GET", ("persistent" | "non-persistent") as domain, tenant, name):
                space = f"{tenant}/{name}"
                if space not in self._cluster.namespaces:
                    raise TopicError(404, "Namespace does not exist")
                start = f"{domain}://{space}/"
                return sorted(topic for topic in self._cluster.topics if topic.startswith(start))
            case (_, ("persistent" | "non-persistent") as domain, tenant, name, topic, *rest):
                full = f"{domain}://{tenant}/{name}/{topic}"
                return self._topic(method, full, rest, query, value)
        raise TopicError(404, "Not Found")

    def _namespace(self, method: str, name: str, rest: _Parts, value: Any) -> Any:
        cluster = self._cluster
        match (method, *rest):
            case ("PUT",):
                cluster.create_namespace(name)
            case ("DELETE",):
                cluster.namespace(name)
                if any(f"://{name}/" in topic for topic in cluster.topics):
                    raise TopicError(409, "Cannot delete non empty namespace")
                del cluster.namespaces[name]
            case ("POST", "deduplication"):
                cluster.namespace(name).deduplication = bool(value)
            case ("POST", "permissions", role):
                cluster.namespace(name).grants[role] = set(value)
            case ("POST", "backlogQuota"):
                cluster.namespace(name)  # taken, and not kept to
            case _:
                raise TopicError(405, "Method Not Allowed")
        return None

    def _topic(
        self, method: str, name: str, rest: _Parts, query: dict[str, str], value: Any
    ) -> Any:
        cluster = self._cluster
        force = query.get("force") == "true"
        match (method, *rest):
            case ("PUT",):
                cluster.create(name)
            case ("DELETE",) | ("DELETE", "partitions"):
                cluster.delete(name, force=force)
            case ("PUT", "partitions"):
                cluster.create(name, int(value))
            case ("GET", "partitions"):
                if query.get("checkAllowAutoCreation") == "true":
                    # It would be made, without partitions.
                    cluster.namespace_of(name)
                else:
                    cluster.existing(name)
                return {"partitions": cluster.partitioned.get(name, 0)}
            case ("PUT", "unload"):
                for topic in cluster.existing(name):
                    topic.unload()
            case ("POST", "terminate"):
                if name in cluster.partitioned:
                    raise TopicError(405, "Termination of a partitioned topic is not allowed")
                topic = self._single(name)
                topic.terminated = True
                return _id(topic.last_id())
            case ("GET", "lastMessageId"):
                return _id(self._single(name).last_id())
            case ("GET", "stats"):
                return _stats(self._single(name))
            case ("GET", "internalStats"):
                return _internal_stats(self._single(name))
            case ("POST", "deduplicationEnabled"):
                for topic in cluster.existing(name):
                    topic.deduplication = bool(value)
            case ("PUT", "subscription", subscription_name):
                for topic in cluster.existing(name):
                    if subscription(topic, subscription_name) is not None:
                        raise TopicError(409, "Subscription already exists for topic")
                    Subscription(topic, subscription_name, earliest=value == "earliest")
            case _:
                raise TopicError(404, "Not Found")
        return None

    def _single(self, name: str) -> Topic:
        if name in self._cluster.partitioned:
            raise TopicError(404, f"Topic {name} not found")
        return self._cluster.existing(name)[0]


def _id(message_id: MessageId) -> dict[str, int]:
    return {
        "ledgerId": message_id.ledger,
        "entryId": message_id.entry,
        "partitionIndex": message_id.partition,
        "batchIndex": message_id.batch_index,
        "batchSize": 0,
    }


def _stats(topic: Topic) -> dict[str, Any]:
    subscriptions = {
        found.name: {
            "type": found.type,
            "msgBacklog": found.backlog,
            "consumers": [{"consumerName": one.name} for one in found.consumers],
        }
        for found in topic.listeners
        if isinstance(found, Subscription)
    }
    return {
        "msgInCounter": len(topic.messages),
        "bytesInCounter": sum(len(message.payload) for message in topic.messages),
        "publishers": [{"producerName": name} for name in sorted(topic.producers)],
        "subscriptions": subscriptions,
        "deduplicationStatus": "Enabled" if topic.deduplicates else "Disabled",
    }


def _internal_stats(topic: Topic) -> dict[str, Any]:
    entries = len({message.message_id[:2] for message in topic.messages})
    last = topic.last_id()
    return {
        "entriesAddedCounter": entries,
        "numberOfEntries": entries,
        "lastConfirmedEntry": f"{last.ledger}:{last.entry}",
        "state": "Terminated" if topic.terminated else "LedgerOpened",
    }


def _answer(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} {phrase(status)}\r\nConnection: close\r\n"
    if body:
        head += f"Content-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
