"""The release: tag, version and changelog agree. The workflows are valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools.release import notes, problems, version
from tools.support_matrix import pairs, render_support

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"


def _project(folder: Path, changelog: str) -> Path:
    (folder / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (folder / "CHANGELOG.md").write_text(
        f"# Changelog\n\n{changelog}\n## [1.1.0] - 2026-01-01\n\nOld.\n"
    )
    return folder


def test_a_tag_that_equals_version_and_changelog_is_released(tmp_path: Path) -> None:
    root = _project(tmp_path, "## [1.2.0] - 2026-12-01\n\n### Added\n\n- A thing.\n")
    assert list(problems("v1.2.0", root)) == []
    assert notes(root) == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("tag", "changelog", "problem"),
    [
        ("v1.3.0", "## [1.2.0] - 2026-12-01\n\n- A.\n", "the tag is v1.3.0"),
        ("v1.2.0", "## [Unreleased]\n\n- A.\n", "no section for 1.2.0"),
        ("v1.2.0", "## [1.2.0] - unreleased\n\n- A.\n", "no date: unreleased"),
        ("v1.2.0", "## [1.2.0] - 2026-12-01\n\n", "is empty"),
    ],
)
def test_what_was_forgotten_is_told(tmp_path: Path, tag: str, changelog: str, problem: str) -> None:
    [found] = problems(tag, _project(tmp_path, changelog))
    assert problem in found


def test_notes_without_a_section_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no section for 1.2.0"):
        notes(_project(tmp_path, ""))


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version as installed

    assert version() == installed("celery-stargate")


def _check_schema(schema: str, paths: list[Path]) -> None:
    assert paths
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflows_are_valid() -> None:
    _check_schema("vendor.github-workflows", sorted((GITHUB / "workflows").glob("*.yml")))


def test_the_templates_are_valid() -> None:
    forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
    config = GITHUB / "ISSUE_TEMPLATE" / "config.yml"
    _check_schema("vendor.github-issue-forms", [each for each in forms if each != config])
    _check_schema("vendor.github-issue-config", [config])
    _check_schema("vendor.dependabot", [GITHUB / "dependabot.yml"])


def test_the_workflow_tests_the_pairs_of_tox() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows" / "tests.yml").read_text("utf-8"))["jobs"]
    matrix = jobs["pairs"]["strategy"]["matrix"]
    assert (matrix["python"], matrix["celery"]) == pairs()


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_what_is_released_is_installed_with_what_its_test_needs(tmp_path: Path, kind: str) -> None:
    """`tools/check_wheel.py` runs pytest."""
    jobs = yaml.safe_load((GITHUB / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    [step] = [each for each in jobs["test"]["steps"] if "pip install" in each.get("run", "")]
    built = tmp_path / "dist" / f"celery_stargate-1{kind[1:]}"
    built.parent.mkdir()
    built.touch()
    done = subprocess.run(
        ["bash", "-c", step["run"].replace("python -m pip install", "echo")],
        cwd=tmp_path,
        env={**os.environ, "KIND": kind},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert done.stdout == f"dist/{built.name}[testing]\n"


def test_only_the_jobs_that_publish_may_write() -> None:
    """A token of a workflow reads, if its job does not say more."""
    for path in (GITHUB / "workflows").glob("*.yml"):
        found = yaml.safe_load(path.read_text("utf-8"))
        assert found["permissions"] == {"contents": "read"}
        for name, job in found["jobs"].items():
            assert name in {"publish", "announce"} or "permissions" not in job


def test_the_classifiers_name_the_tested_pythons() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for python in pairs()[0]:
        assert f'"Programming Language :: Python :: {python}"' in text


def test_the_matrix_shows_each_pair() -> None:
    pythons, celeries = pairs()
    text = render_support()
    assert text.count("tested") == len(pythons) * len(celeries)
    assert all(f"Celery {each}" in text for each in celeries)
