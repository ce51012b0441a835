"""Names of OpenTelemetry's conventions for messaging. They are in development: they may change."""

from __future__ import annotations

__all__ = [
    "CONTEXT_HEADER",
    "DURATION",
    "MESSAGE_ID_HEADER",
    "SCHEMA_URL",
    "SENT",
    "SYSTEM",
    "TOPIC_HEADER",
    "Attribute",
    "Operation",
]

#: The version of the conventions that these names are of.
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM = "pulsar"

#: Metrics: seconds of an operation, and messages that were sent.
DURATION = "messaging.client.operation.duration"
SENT = "messaging.client.sent.messages"


class Attribute:
    """Attributes of spans and metrics."""

    SYSTEM = "messaging.system"
    OPERATION_NAME = "messaging.operation.name"
    OPERATION_TYPE = "messaging.operation.type"
    DESTINATION = "messaging.destination.name"
    PARTITION = "messaging.destination.partition.id"
    MESSAGE_ID = "messaging.message.id"
    #: The id of the call that the message belongs to.
    CONVERSATION_ID = "messaging.message.conversation_id"
    SERVER_ADDRESS = "server.address"
    SERVER_PORT = "server.port"
    ERROR_TYPE = "error.type"


class Operation:
    """Operations: for each, its name and its type are the same word."""

    #: A call makes a message: it is checked, and recorded in its lane.
    CREATE = "create"
    #: The lane's owner writes it, and Pulsar answers.
    SEND = "send"
    #: The lane learns the outcome.
    SETTLE = "settle"
    #: A callback runs.
    PROCESS = "process"


#: Headers of a callback's task, beside ``traceparent``: which receipt it is for.
TOPIC_HEADER, CONTEXT_HEADER = "stargate_topic", "stargate_context"
MESSAGE_ID_HEADER = "stargate_message_id"
