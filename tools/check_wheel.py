"""Check an installed wheel against the checkout: all files are there, it imports, its scripts load.

Run it with `python -I`, away from the checkout, so that nothing but installed packages is found.
Where `STARGATE_SHARED_REDIS_URL` names a Redis, that Redis compiles each script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import files as files_of
from importlib.metadata import version
from pathlib import Path

import redis

import celery_stargate
from celery_stargate.lanes.scripts import lane_script, registry_script

_SOURCE = Path(__file__).resolve().parent.parent / "celery_stargate"
_SUFFIXES = {".py", ".lua", ".typed"}


def files(folder: Path) -> set[str]:
    """Return what a package has to bring."""
    found = folder.rglob("*")
    return {str(each.relative_to(folder)) for each in found if each.suffix in _SUFFIXES}


def scripts(folder: Path) -> list[str]:
    """Return the text of each script, as the package loads it."""
    lane = [each.stem for each in (folder / "lanes" / "lua").glob("*.lua") if each.stem != "common"]
    registry = [each.stem for each in (folder / "lanes" / "lua" / "registry").glob("*.lua")]
    assert lane and registry, "there are no scripts"
    return [*map(lane_script, lane), *map(registry_script, registry)]


def check_contents() -> None:
    """Check that nothing else came with the package: no tests, no tools, no hooks of theirs."""
    brought = {str(each).partition("/")[0] for each in files_of("celery-stargate") or ()}
    own = {each for each in brought if not each.endswith((".dist-info", ".."))}
    assert own == {"celery_stargate", "pytest_celery_stargate"}, f"the wheel brings {sorted(own)}"


def check_plugin() -> None:
    """Run the tests of docs/testing.md: pytest must find the plugin by itself."""
    tests = _SOURCE.parent / "examples" / "tested"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("shop.py", "test_shop.py", "test_receipts.py"):
            (Path(folder) / name).write_text((tests / name).read_text("utf-8"), "utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        subprocess.run(command, cwd=folder, check=True, timeout=120)


def main() -> int:
    """Return 0 when the wheel is whole."""
    installed = Path(celery_stargate.__file__).parent
    assert "site-packages" in installed.parts, f"not an installed package: {installed}"
    missing = files(_SOURCE) - files(installed)
    assert not missing, f"the wheel lacks {sorted(missing)}"
    check_contents()
    assert (installed / "py.typed").is_file(), "py.typed is missing"
    for name in celery_stargate.__all__:
        assert hasattr(celery_stargate, name), f"{name} is missing"
    check_plugin()
    texts = scripts(installed)
    url = os.environ.get("STARGATE_SHARED_REDIS_URL")
    if url:
        with redis.Redis.from_url(url) as client:
            for text in texts:
                client.script_load(text)
    print(
        f"celery-stargate {version('celery-stargate')}: {len(files(installed))} files, "
        f"{len(texts)} scripts {'loaded' if url else 'read (no Redis to load them)'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
