"""Messages: the forms that a caller may use, checked before anything is recorded.

In a Python call a message is text, bytes, a tuple ``(key, payload)``, a mapping or a
:class:`Message`. Between tasks it travels as JSON, which turns a tuple into a list, and a list is
several messages. So between tasks a message with a key is a mapping or a :class:`Message`:
:func:`to_json_form` makes one when a produce task encodes its arguments, and
:func:`refuse_ambiguous` refuses what another sender encoded as a list of two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from celery_stargate.errors import InvalidMessage, nearest, shown

__all__ = ["Message", "check_messages", "refuse_ambiguous", "to_json_form"]

#: 2**63 - 1: Pulsar reads times into a Java long.
_LONG = 9_223_372_036_854_775_807
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class _Payload(msgspec.Struct, frozen=True):
    # In a base class, because it is the only positional argument of Message.
    payload: str | bytes


class Message(_Payload, frozen=True, kw_only=True):
    """One message for Pulsar: ``Message("text", key="k")``, ``Message.json({"id": 1}, key="k")``.

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

    Example:
        >>> Message("one lamp", key="order-17", properties={"type": "order-placed"})
        <Message of 8 characters>
    """

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
                "for JSON use Message.json(…) or {'json': …}"
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

    @classmethod
    def json(
        cls,
        value: object,
        *,
        key: str | None = None,
        properties: Mapping[str, str] | None = None,
        event_time: datetime | str | float | None = None,
        deliver_at: datetime | str | float | None = None,
        deliver_after: timedelta | float | None = None,
        replication_clusters: Sequence[str] | None = None,
    ) -> Message:
        """Return a message whose payload is a value as JSON text.

        ``datetime`` becomes ISO 8601 text, ``UUID`` and ``Decimal`` become text, ``bytes`` become
        base64; dataclasses, enums, sets, named tuples and msgspec's Structs work too, as in
        ``msgspec.json.encode``. NaN and infinity become null.

        Arguments:
            value: what to encode.
            key, properties, event_time, deliver_at, deliver_after, replication_clusters: as in
                :class:`Message`.

        Returns:
            The message.

        Raises:
            InvalidMessage: the value cannot be encoded, or a field is wrong.

        Example:
            >>> Message.json({"id": 17, "item": "lamp"}, key="order-17").payload
            '{"id":17,"item":"lamp"}'
        """
        return cls(
            _encode(value),
            key=key,
            properties=properties,
            event_time=event_time,
            deliver_at=deliver_at,
            deliver_after=deliver_after,
            replication_clusters=replication_clusters,
        )

    def __repr__(self) -> str:
        # Payloads and keys must not appear in logs.
        return f"<Message of {len(self.payload)} {_unit(self.payload)}>"

    __str__ = __repr__

    def __json__(self) -> dict[str, Any]:
        """Return the mapping form: kombu's JSON calls this for a message in a task's arguments."""
        return self.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping form with only the fields that are set.

        Example:
            >>> Message("one lamp", key="order-17").to_dict()
            {'payload': 'one lamp', 'key': 'order-17'}
        """
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


#: The fields of the mapping form. ``json`` stands for a payload that is to be encoded.
_FIELDS = ("payload", "json", *Message.__struct_fields__[1:])
_FORMS = "text, bytes, (key, payload), a mapping or a Message"
_KEYED = "{'key': …, 'payload': …}"
_set = msgspec.structs.force_setattr


def check_messages(given: object) -> tuple[list[Message], bool]:
    """Return the messages of a call, and whether the caller gave a list.

    Arguments:
        given: ``str`` or ``bytes``; a tuple ``(key, payload)``; a mapping with the fields of
            :class:`Message`, or with ``json`` in place of ``payload``; a :class:`Message`; or a
            list of these.

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


def to_json_form(given: object) -> object:
    """Return a call's messages in a form that JSON does not change.

    A tuple ``(key, payload)`` and a :class:`Message` become mappings, and ``json`` is encoded. In a
    list of two texts each becomes a mapping, so that it cannot be taken for a tuple. Anything that
    is not a message is returned as it is.

    Raises:
        InvalidMessage: the value of ``json`` cannot be encoded.
    """
    if isinstance(given, list):
        if _may_be_tuple(given):
            return [{"payload": item} for item in given]
        return [_json_form(item) for item in given]
    return _json_form(given)


def _json_form(given: object) -> object:
    match given:
        case tuple() if len(given) == 2:
            return {"key": given[0], "payload": given[1]}
        case Message():
            return given.to_dict()
        case bytearray() | memoryview():
            return bytes(given)
        case Mapping():
            fields = dict(given)
            if "json" in fields and fields.get("payload") is None:
                fields.pop("payload", None)
                fields["payload"] = _encode(fields.pop("json"))
            if isinstance(fields.get("deliver_after"), timedelta):
                fields["deliver_after"] = fields["deliver_after"].total_seconds()
            return fields
    return given


def refuse_ambiguous(given: object) -> None:
    """Refuse a list of two texts that came as JSON: it may have been ``(key, payload)``.

    A produce task never encodes such a list (:func:`to_json_form`), but ``app.send_task`` and
    signatures by name do, and so do programs in other languages.

    Raises:
        InvalidMessage: it says what to send instead.
    """
    if isinstance(given, list) and _may_be_tuple(given):
        raise InvalidMessage(
            "a list of two texts came as JSON, and it may have been a tuple (key, payload); send "
            f"{_KEYED}, or for two messages [{{'payload': …}}, {{'payload': …}}]"
        )


def _may_be_tuple(given: list[object]) -> bool:
    return len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], str | bytes)


def _encode(value: object) -> str:
    """Return a value as JSON text."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        # Not the text of UnicodeEncodeError: it contains the value.
        why = "" if isinstance(error, UnicodeError) else f": {error}"
        raise InvalidMessage(f"json cannot be encoded: {type(error).__name__}{why}") from None


def _check(given: object) -> Message:
    match given:
        case Message():
            return given
        case str() | bytes() | bytearray() | memoryview():
            return Message(given if isinstance(given, str) else bytes(given))
        case tuple():
            if len(given) != 2:
                raise InvalidMessage(
                    f"a tuple is (key, payload), and this one has {len(given)} parts"
                )
            return Message(given[1], key=_text("key", given[0]))
        case Mapping():
            return _from_mapping(given)
        case list():
            raise InvalidMessage(
                f"a message is {_FORMS}, not list; JSON turns (key, payload) into a list: use "
                f"{_KEYED}"
            )
    raise InvalidMessage(f"a message is {_FORMS}, not {type(given).__name__}")


def _from_mapping(given: Mapping[Any, Any]) -> Message:
    for name in given:
        if not isinstance(name, str):
            raise InvalidMessage(f"the name of a field must be text, not {type(name).__name__}")
        if name not in _FIELDS:
            known = ", ".join(_FIELDS)
            close = nearest(name, _FIELDS) or "."
            raise InvalidMessage(
                f"unknown field {shown(name)}{close} The fields are {known}{_meant_as_json(given)}"
            )
    fields = dict(given)
    if "json" in fields:
        if fields.get("payload") is not None:
            raise InvalidMessage("payload and json are both given; give one")
        fields["payload"] = _encode(fields.pop("json"))
    if fields.get("payload") is None:
        raise InvalidMessage(
            f"the mapping has no payload; a message is {{'payload': text or bytes}} or "
            f"{{'json': …}}{_meant_as_json(given)}"
        )
    return Message(**fields)


def _meant_as_json(given: Mapping[object, object]) -> str:
    if not given:
        return ", also for an empty JSON object: {'json': {}}"
    if given.keys().isdisjoint(("payload", "json")):
        return "; to send this mapping as JSON, give {'json': …}"
    return ""


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
