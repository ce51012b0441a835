"""A real worker serves its metrics, and counts what its pool does."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT, eventually
from tests.servers.ports import free_ports


def scrape(port: int) -> dict[str, float]:
    """Return what Prometheus reads: name and labels to value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT) as answer:
        text = answer.read().decode()
    found = re.findall(r"^(stargate_\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_a_worker_serves_what_it_did(make_rig: MakeRig, tmp_path: Path) -> None:
    """Its own figures and, in multiprocess mode, those of its pool: there ``delay()`` is called."""
    [port] = free_ports(1)
    rig = make_rig(stargate_metrics_port=port)
    topic = rig.topic_name
    with rig.worker(env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}):
        for number in range(5):
            rig.produce.delay(str(number)).get(timeout=WAIT)
        made = rig.task("publish").delay("of a task", topic).get(timeout=WAIT)
        assert rig.produce.AsyncResult(made).get(timeout=WAIT)["status"] == "stored"
        of_topic = f'{{topic="{topic}"}}'
        eventually(lambda: scrape(port).get(f"stargate_sent_messages_total{of_topic}") == 6)
        found = scrape(port)
    assert found[f"stargate_recorded_messages_total{of_topic}"] == 1
    assert found[f"stargate_sent_messages_total{of_topic}"] == 6
    outcomes = f'stargate_outcomes_total{{error_type="",outcome="stored",topic="{topic}"}}'
    assert found[outcomes] == 6
    assert found[f"stargate_receipt_duration_seconds_count{of_topic}"] == 6
    assert found[f"stargate_backlog_messages{of_topic}"] == 0
    assert found[f"stargate_oldest_message_age_seconds{of_topic}"] == 0
