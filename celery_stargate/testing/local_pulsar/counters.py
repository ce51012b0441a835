"""Counters of one stand-in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Counts over all connections since the stand-in was created. Read them only.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     pulsar.counters.handshakes
        0
    """

    #: Upgrade requests, and how many of them were refused (faults included).
    handshakes: int = 0
    refused: int = 0
    #: Frames that producers sent.
    frames: int = 0
    #: Messages stored, messages answered `ok` but not stored, errors answered.
    stored: int = 0
    deduplicated: int = 0
    errors: int = 0
    #: Frames written to producers: receipts, with what faults made of them.
    receipts: int = 0
    #: Pings that were answered.
    pings: int = 0
