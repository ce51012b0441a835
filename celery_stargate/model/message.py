"""Messages: the forms that a caller may use, checked before anything is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from celery_stargate.errors import InvalidMessage, nearest, shown

__all__ = ["Message", "check_messages"]

#: 2**63 - 1: Pulsar reads times into a Java long.
_LONG = 9_223_372_036_854_775_807
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class Message(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """One message for Pulsar.

    It has only the fields that Pulsar's WebSocket producer uses. Pulsar ignores ``sequenceId``,
    ``schemaVersion`` and ``disableReplication``
    (``ProducerMessage`` and ``ProducerHandler`` in pulsar-websocket 4.0).

    Arguments:
        payload: bytes, or text that is sent as UTF-8.
        key: the key for routing, compaction and Key_Shared consumers.
        properties: a mapping of text to text.
        event_time: an aware ``datetime``, an ISO 8601 text with an offset, or epoch seconds.
        deliver_at: an aware ``datetime``, an ISO 8601 text with an offset, or epoch seconds.
        deliver_after: seconds or a ``timedelta``, from the moment when Pulsar gets the message.
        replication_clusters: names of the clusters that get a copy.

    Pulsar delays delivery only for Shared and Key_Shared subscriptions.

    Raises:
        InvalidMessage: a field is of a wrong type or form, or ``deliver_at`` and
            ``deliver_after`` are both given.
    """

    payload: str | bytes
    key: str | None = None
    properties: Mapping[str, str] | None = None
    event_time: datetime | str | float | None = None
    deliver_at: datetime | str | float | None = None
    deliver_after: timedelta | float | None = None
    replication_clusters: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.payload, str | bytes | bytearray | memoryview):
            raise InvalidMessage(
                f"payload must be text or bytes, not {type(self.payload).__name__}; "
                "encode it first, for instance with json.dumps"
            )
        if isinstance(self.payload, str):
            _encodable("payload", self.payload)
        else:
            # Copy buffers and containers, so that what was checked is what is sent.
            _set(self, "payload", bytes(self.payload))
        if self.key is not None:
            _text("key", self.key)
        if self.properties is not None:
            if not isinstance(self.properties, Mapping):
                raise InvalidMessage(
                    f"properties must map text to text, not be {type(self.properties).__name__}"
                )
            for name, value in self.properties.items():
                _text("the name of a property", name)
                _text(f"property {shown(name)}", value)
            _set(self, "properties", dict(self.properties))
        if self.event_time is not None:
            _moment("event_time", self.event_time)
        if self.deliver_at is not None:
            _moment("deliver_at", self.deliver_at)
        if self.deliver_after is not None:
            _duration("deliver_after", self.deliver_after)
            if self.deliver_at is not None:
                raise InvalidMessage("deliver_at and deliver_after are both given; give one")
        clusters = self.replication_clusters
        if clusters is not None:
            if isinstance(clusters, str) or not isinstance(clusters, Sequence):
                raise InvalidMessage("replication_clusters must be a list of names")
            for cluster in clusters:
                _text("a name in replication_clusters", cluster)
            _set(self, "replication_clusters", tuple(clusters))

    def __repr__(self) -> str:
        # Payloads and keys must not appear in logs.
        return f"<Message of {len(self.payload)} {_unit(self.payload)}>"

    __str__ = __repr__

    def __json__(self) -> dict[str, Any]:
        """Return the mapping form: kombu's JSON calls this for a message in a task's arguments."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping form with only the fields that are set."""
        fields = {
            name: value for name, value in msgspec.structs.asdict(self).items() if value is not None
        }
        if isinstance(self.deliver_after, timedelta):
            fields["deliver_after"] = self.deliver_after.total_seconds()
        return fields

    def to_frame_fields(self) -> dict[str, Any]:
        """Return the fields of Pulsar's frame: names in camel case, durations in milliseconds.

        The payload is bytes; msgspec writes bytes as base64.
        """
        payload = self.payload.encode() if isinstance(self.payload, str) else self.payload
        fields: dict[str, Any] = {"payload": payload}
        if self.key is not None:
            fields["key"] = self.key
        if self.properties:
            fields["properties"] = dict(self.properties)
        if self.event_time is not None:
            fields["eventTime"] = _moment("event_time", self.event_time).isoformat(
                timespec="milliseconds"
            )
        if self.deliver_at is not None:
            moment = _moment("deliver_at", self.deliver_at)
            fields["deliverAt"] = (moment - _EPOCH) // _MILLISECOND
        if self.deliver_after is not None:
            seconds = _duration("deliver_after", self.deliver_after)
            # Pulsar reads 0 as no delay.
            fields["deliverAfterMs"] = max(1, round(seconds * 1000))
        if self.replication_clusters is not None:
            fields["replicationClusters"] = list(self.replication_clusters)
        return fields


_FIELDS = Message.__struct_fields__
_set = msgspec.structs.force_setattr


def check_messages(given: object) -> tuple[list[Message], bool]:
    """Return the messages of a call, and whether the caller gave a list.

    Arguments:
        given: ``str`` or ``bytes``; a tuple ``(key, payload)``; a mapping with the fields of
            :class:`Message`; a :class:`Message`; or a list of these.

    Raises:
        InvalidMessage: the text says what is wrong and, in a list, at which index.
    """
    if not isinstance(given, list):
        return [_check(given)], False
    if not given:
        raise InvalidMessage("the list of messages is empty")
    messages = []
    for index, item in enumerate(given):
        try:
            messages.append(_check(item))
        except InvalidMessage as error:
            raise InvalidMessage(error.problem, index) from None
    return messages, True


def _check(given: object) -> Message:
    match given:
        case Message():
            return given
        case str() | bytes() | bytearray() | memoryview():
            return Message(payload=given if isinstance(given, str) else bytes(given))
        case tuple():
            if len(given) != 2:
                raise InvalidMessage(
                    f"a tuple is (key, payload), and this one has {len(given)} parts"
                )
            return Message(key=_text("key", given[0]), payload=given[1])
        case Mapping():
            return _from_mapping(given)
    raise InvalidMessage(
        f"a message is text, bytes, (key, payload), a mapping or a Message, "
        f"not {type(given).__name__}"
    )


def _from_mapping(given: Mapping[Any, Any]) -> Message:
    for name in given:
        if not isinstance(name, str):
            raise InvalidMessage(f"the name of a field must be text, not {type(name).__name__}")
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            close = nearest(name, _FIELDS) or "."
            raise InvalidMessage(f"unknown field {shown(name)}{close} The fields are {known}")
    if given.get("payload") is None:
        raise InvalidMessage("the mapping has no payload")
    return Message(**given)


def _unit(payload: str | bytes) -> str:
    return "characters" if isinstance(payload, str) else "bytes"


def _encodable(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidMessage(
            f"{what} contains a lone surrogate, which UTF-8 cannot encode; send bytes instead"
        ) from None


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidMessage(f"{what} must be text, not {type(value).__name__}")
    _encodable(what, value)
    return value


def _moment(what: str, value: object) -> datetime:
    """Return a point in time as an aware datetime.

    Pulsar refuses a naive time only after the call, with error 7 (``DateFormatter.parse`` in
    pulsar-common).
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            moment = datetime.fromtimestamp(value).astimezone()
        except (OverflowError, OSError, ValueError):
            raise InvalidMessage(f"{what} {shown(value)} is not an epoch time in seconds") from None
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidMessage(f"{what} {shown(value)} is not an ISO 8601 time") from None
    elif isinstance(value, datetime):
        moment = value
    else:
        raise InvalidMessage(
            f"{what} must be a datetime, an ISO 8601 text or epoch seconds, "
            f"not {type(value).__name__}"
        )
    if moment.utcoffset() is None:
        raise InvalidMessage(f"{what} {value!s} is naive; give it a time zone")
    if moment.timestamp() <= 0:
        raise InvalidMessage(f"{what} {value!s} is not after 1970, which Pulsar ignores")
    return moment


def _duration(what: str, value: object) -> float:
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise InvalidMessage(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    if not seconds > 0:
        raise InvalidMessage(f"{what} must be more than 0 seconds, and is {seconds}")
    if seconds * 1000 > _LONG:
        raise InvalidMessage(f"{what} must be finite, and is {shown(seconds)}")
    return float(seconds)
