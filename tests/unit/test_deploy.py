"""The examples of deployment, as far as their own tools and schemas can judge them here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_stargate.model.settings import Settings
from tests.servers.fixtures import require

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
#: How long a worker may take to end beside its wait for receipts (docs/settings.md).
_REST = 15.0


def _load(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def _manifests() -> Iterator[dict[str, Any]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from _load(path)


def _manifest(kind: str, name: str) -> dict[str, Any]:
    [found] = [
        each for each in _manifests() if (each["kind"], each["metadata"]["name"]) == (kind, name)
    ]
    return found


def _check_schema(schema: str, *paths: Path) -> None:
    """Check files against a schema that comes with check-jsonschema."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class TestCompose:
    path = DEPLOY / "compose" / "compose.yaml"

    def test_it_is_a_compose_file(self) -> None:
        """By the Compose specification's own schema, and by Compose where there is one."""
        _check_schema("vendor.compose-spec", self.path)
        docker = shutil.which("docker")
        has_compose = (
            docker
            and not subprocess.run(
                [docker, "compose", "version"], capture_output=True, check=False, timeout=60
            ).returncode
        )
        if has_compose:
            subprocess.run(
                [str(docker), "compose", "-f", str(self.path), "config", "-q"],
                check=True,
                timeout=60,
            )

    def test_the_files_that_it_mounts_and_builds_exist(self) -> None:
        [found] = _load(self.path)
        for service in found["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (self.path.parent / source).is_file(), source
                else:
                    assert source in found["volumes"]
            if "build" in service:
                context = self.path.parent / service["build"]["context"]
                dockerfile = context / service["build"]["dockerfile"]
                for copied in re.findall(r"^COPY (.*) \S+$", dockerfile.read_text(), re.MULTILINE):
                    for each in copied.split():
                        assert (context / each).exists(), each

    def test_no_port_is_open_to_other_machines(self) -> None:
        """Nothing there has a password."""
        [found] = _load(self.path)
        ports = [port for each in found["services"].values() for port in each.get("ports", [])]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_the_worker_has_time_to_end(self) -> None:
        [found] = _load(self.path)
        grace = float(found["services"]["worker"]["stop_grace_period"].removesuffix("s"))
        assert grace >= Settings().drain_timeout + _REST

    def test_prometheus_scrapes_the_exporter(self) -> None:
        [found] = _load(self.path)
        [scraped] = _load(DEPLOY / "compose" / "prometheus.yml")
        exporter, worker = (
            each["static_configs"][0]["targets"][0] for each in scraped["scrape_configs"]
        )
        host, port = exporter.split(":")
        assert found["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]
        host, port = worker.split(":")
        environment = found["services"][host]["environment"]
        assert environment["STARGATE_METRICS_PORT"] == port
        # By default only its own container would reach the port.
        assert environment["STARGATE_METRICS_HOST"] == "0.0.0.0"
        served = subprocess.run(
            [
                *(sys.executable, "-c"),
                "import shop; of = shop.stargate.settings; print(of.metrics_host, of.metrics_port)",
            ],
            cwd=DEPLOY / "compose",
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert served.stdout.split() == ["0.0.0.0", port]

    def test_the_image_has_all_packages_of_the_wheel(self) -> None:
        """What is not copied is left out without an error."""
        wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
        copied = (DEPLOY / "compose" / "Dockerfile").read_text()
        for package in wheel["targets"]["wheel"]["packages"]:
            assert f"COPY {package} /src/{package}\n" in copied


class TestKubernetes:
    @pytest.mark.parametrize(
        "manifest",
        list(_manifests()),
        ids=lambda each: f"{each['kind']}-{each['metadata']['name']}",
    )
    def test_each_manifest_is_valid(self, manifest: dict[str, Any]) -> None:
        """By the schema of the newest Kubernetes that it knows, with no unknown field."""
        import kubernetes_validate

        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)

    def test_kustomization_lists_all_files(self) -> None:
        [found] = _load(DEPLOY / "kubernetes" / "kustomization.yaml")
        files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
        assert {*found["resources"], "kustomization.yaml"} == files

    def test_the_worker_has_time_to_end(self) -> None:
        """More than the setting's default, the rest, and the longest task that it names."""
        pod = _manifest("Deployment", "shop-worker")["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] >= Settings().drain_timeout + _REST + 30

    def test_the_budget_and_the_service_select_the_pods(self) -> None:
        for kind, name, deployment in (
            ("PodDisruptionBudget", "shop-worker", "shop-worker"),
            ("Service", "shop-stargate-exporter", "shop-stargate-exporter"),
        ):
            selector = _manifest(kind, name)["spec"]["selector"]
            pods = _manifest("Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
            assert selector.get("matchLabels", selector).items() <= pods.items()

    def test_an_eviction_leaves_a_worker(self) -> None:
        budget = _manifest("PodDisruptionBudget", "shop-worker")["spec"]["minAvailable"]
        assert 0 < budget < _manifest("Deployment", "shop-worker")["spec"]["replicas"]

    def test_there_is_one_exporter(self) -> None:
        """Two would count everything twice."""
        assert _manifest("Deployment", "shop-stargate-exporter")["spec"]["replicas"] == 1


class TestSystemd:
    path = DEPLOY / "systemd" / "celery-stargate.service"

    def test_systemd_accepts_the_unit(self, tmp_path: Path) -> None:
        tool = shutil.which("systemd-analyze")
        require(None if tool else "systemd-analyze is not installed")
        command = Path(sys.executable).parent / "celery"
        unit = tmp_path / self.path.name
        unit.write_text(self.path.read_text().replace("/opt/shop/.venv/bin/celery", str(command)))
        done = subprocess.run(
            [str(tool), "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert self.path.name not in done.stderr

    def test_the_worker_has_time_to_end(self) -> None:
        [seconds] = re.findall(r"^TimeoutStopSec=(\d+)$", self.path.read_text(), re.MULTILINE)
        assert float(seconds) >= Settings().drain_timeout + _REST + 30
