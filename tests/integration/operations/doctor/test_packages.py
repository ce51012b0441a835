"""An environment with packages that are missing or too old: real files, without the real ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.servers.fixtures import ServerAddress

_ROOT = Path(__file__).resolve().parents[4]
_APP = """
from celery import Celery
from celery_stargate import Stargate
app = Celery("shop", broker={url!r}, backend={url!r})
app.conf.update(stargate_url="ws://127.0.0.1:1", stargate_prefix={prefix!r})
Stargate(app)
"""


def _environment(folder: Path) -> None:
    """Link what is installed here, but no hiredis; and msgspec says that it is version 0.18."""
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    for each in (each for path in paths for each in Path(path).iterdir()):
        if not each.name.startswith(("hiredis", "msgspec-")) and not (folder / each.name).exists():
            (folder / each.name).symlink_to(each)
    old = folder / "msgspec-0.18.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: msgspec\nVersion: 0.18.0\n")


@pytest.mark.plants("hiredis")
@pytest.mark.plants("versions")
def test_finds_packages_that_are_missing_or_too_old(
    redis_server: ServerAddress, prefix: str, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    _environment(packages)
    (tmp_path / "shop.py").write_text(_APP.format(url=redis_server.url, prefix=prefix))
    path = os.pathsep.join(map(str, (packages, _ROOT)))
    # -S: what is installed here is not seen.
    command = [sys.executable, "-S", "-m", "celery", "-A", "shop", "stargate", "doctor", "--json"]
    done = subprocess.run(
        command,
        # It ends with 2: there is no Pulsar.
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = {each["check"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert found["hiredis"]["found"] == "hiredis is not installed", done.stderr
    assert found["hiredis"]["mend"] == "pip install 'redis[hiredis]'"
    assert found["versions"]["found"] == "msgspec is 0.18.0"
    assert found["versions"]["mend"] == "pip install 'msgspec>=0.19'"
