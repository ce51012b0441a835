"""Faults of the machine and its operators: descriptors, clocks, tokens, changing workers."""

from __future__ import annotations

import random
import resource
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.acceptance.rig import eventually
from tests.faults.environment import TOKENS
from tests.faults.registry import Setup, fault
from tests.faults.trial import Trial
from tests.servers.credentials import TLSFiles, make_tls, sign_server, tls_missing_reason


@fault(
    "descriptors-exhausted",
    "a worker may open no more descriptors, and its links are cut",
    lasts=4.0,
)
def _descriptors(trial: Trial, draw: random.Random) -> Iterator[None]:
    victim = trial.owner()
    pid = victim.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
    # Numbers below it that are free are used up by what is cut.
    trial.link.cut()
    trial.store_link.cut()
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@fault(
    "workers-come-and-go",
    "a worker joins, and the oldest gets SIGTERM, while lanes move between them",
    strikes=4,
)
def _churn(trial: Trial, draw: random.Random) -> Iterator[None]:
    oldest = trial.workers.pop(0)
    trial.workers.append(trial.new_worker())
    oldest.terminate()
    yield
    oldest.stop()


@fault(
    "clock-jumps",
    "the clock of all workers jumps by an hour, forth or back, and back again",
    strikes=4,
    setup=Setup(clock=True),
)
def _clock(trial: Trial, draw: random.Random) -> Iterator[None]:
    trial.clock.offset = draw.choice((-3600, 3600))
    yield
    trial.clock.offset = 0


@fault(
    "token-expires",
    "each connection's token is valid for two seconds; links are cut after that",
    lasts=2.5,
    setup=Setup(broker="tokens", env={TOKENS: "2"}),
)
def _token(trial: Trial, draw: random.Random) -> Iterator[None]:
    time.sleep(2.0)
    trial.link.cut()
    yield


#: The broker reads no other keys.
_RSA = ("-newkey", "rsa:2048")


@fault(
    "certificates-renewed",
    "Pulsar's certificate expires and links are cut; then there are a new authority and new "
    "certificates of Pulsar and of its clients, and links are cut again",
    strikes=2,
    lasts=3.0,
    setup=Setup(broker="tls"),
    missing=tls_missing_reason,
)
def _certificates(trial: Trial, draw: random.Random) -> Iterator[None]:
    tls = trial.own_pulsar.tls
    assert tls is not None
    with tempfile.TemporaryDirectory() as made:
        certificate, key = sign_server(
            Path(made), tls.ca, "subjectAltName=IP:127.0.0.1", until="200201000000Z", key=_RSA
        )
        shutil.copy(key, tls.server_key)
        shutil.copy(certificate, tls.server_certificate)
    _await_served(trial, tls)
    trial.link.cut()
    yield
    with tempfile.TemporaryDirectory() as made:
        make_tls(Path(made), require_client=True).copy_to(tls)
    _await_served(trial, tls)
    trial.link.cut()


def _await_served(trial: Trial, tls: TLSFiles) -> None:
    """Wait until Pulsar shows the certificate of the file."""
    wanted = ssl.PEM_cert_to_DER_cert(tls.server_certificate.read_text())
    address = "127.0.0.1", urlsplit(trial.own_pulsar.url).port or 0

    def served() -> bool:
        try:
            shown = ssl.get_server_certificate(address, timeout=5.0)
        except OSError:
            return False
        return ssl.PEM_cert_to_DER_cert(shown) == wanted

    assert eventually(served, 30.0, every=0.2), "Pulsar does not take its new certificate"
