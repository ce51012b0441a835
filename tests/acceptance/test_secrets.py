"""What Celery shows of the configuration: `celery report` and `celery inspect conf`, really run."""

from __future__ import annotations

import subprocess
from urllib.parse import urlsplit

import redis

from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import WAIT

PASSWORD = "s3cr3t-password"
TOKEN = "s3cr3t-token"


def test_no_secret_is_shown(make_rig: MakeRig) -> None:
    """Neither the password of the lanes' Redis nor the token; the rest is shown."""
    rig = make_rig()
    plain = urlsplit(rig.redis_url)
    secret = plain._replace(netloc=f"shop:{PASSWORD}@{plain.hostname}:{plain.port}")
    conf = {"stargate_redis_url": secret.geturl(), "stargate_token": TOKEN, "stargate_lease": 3}
    with redis.Redis.from_url(rig.redis_url) as client:
        client.acl_setuser(
            "shop", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], categories=["+@all"]
        )
        try:
            # A log is shown too where a test fails, so the worker's is read before it ends.
            with rig.worker(pool="solo", conf=conf) as worker:
                assert rig.produce.delay("x", topic=rig.topic()).get(timeout=WAIT)
                celery = worker.command[: worker.command.index("worker")]
                shown = ""
                for words in (["report"], ["inspect", "conf"], ["inspect", "report"]):
                    done = subprocess.run(
                        [*celery, *words],
                        env=worker.env,
                        capture_output=True,
                        text=True,
                        timeout=WAIT,
                        check=True,
                    )
                    assert "stargate_redis_url" in done.stdout
                    assert "stargate_lease" in done.stdout
                    shown += done.stdout + done.stderr
                shown += worker.log_path.read_text("utf-8")
        finally:
            client.acl_deluser("shop")
    assert PASSWORD not in shown
    assert TOKEN not in shown
