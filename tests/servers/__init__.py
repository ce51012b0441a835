"""The real servers that tests run against: Pulsar, Redis, RabbitMQ, each from code, on free ports.

`python -m tests.servers` starts one of each for work by hand.
"""

from __future__ import annotations

from tests.servers.admin import AdminError, PulsarAdmin
from tests.servers.credentials import TLSFiles, make_tls, make_token
from tests.servers.process import ServerError
from tests.servers.pulsar import PulsarServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

__all__ = [
    "AdminError",
    "PulsarAdmin",
    "PulsarServer",
    "RabbitServer",
    "RedisServer",
    "ServerError",
    "TLSFiles",
    "make_tls",
    "make_token",
]
