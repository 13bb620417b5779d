"""What development installs is locked, and what users install can be built again, byte for byte."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = ("amqp_tasks", "routing", "tests", "docs", "compose")
FILES = (
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "constraints.txt",
    ".gitignore",
)
EPOCH = "1700000000"


def project() -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def requirements() -> Iterator[Requirement]:
    """All that `.[dev]` asks for by itself, and all other extras."""
    written = project()
    for text in chain(written["dependencies"], *written["optional-dependencies"].values()):
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) != written["name"]:
            yield requirement


def lines() -> list[str]:
    """Of the lock, without comments."""
    texts = (ROOT / "constraints.txt").read_text().splitlines()
    return [text for text in texts if text and not text.startswith("#")]


def locked(python: str) -> dict[str, str]:
    """Versions by name, as pip takes them with this Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, str] = {}
    for line in lines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (exact,) = requirement.specifier
            assert exact.operator == "=="
            found[canonicalize_name(requirement.name)] = exact.version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_locked_to_a_version_that_it_allows(python: str) -> None:
    versions = locked(python)

    wrong = [
        str(each)
        for each in requirements()
        if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"))
    ]
    assert wrong == [], "run `make lock`"


def test_the_lock_is_one_that_pip_takes_and_names_no_place_to_get_it_from() -> None:
    assert [line for line in lines() if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", line)] == []


def test_every_python_that_is_supported_is_locked_for() -> None:
    prefix = "Programming Language :: Python :: 3."
    supported = [text.rpartition(" ")[2] for text in project()["classifiers"] if text.startswith(prefix)]

    assert tuple(supported) == PYTHONS


def copy_of_the_tree(target: Path, *, is_odd: bool) -> Path:
    """The files that a build reads; odd: of another time, with other permissions, and with what is left of a test run."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
    if is_odd:
        (target / "amqp_tasks" / "__pycache__").mkdir()
        (target / "amqp_tasks" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"left")
        for path in target.rglob("*.py"):
            path.chmod(0o600)
            os.utime(path, (1, 1_000_000_000))
    return target


def built(tree: Path) -> dict[str, str]:
    """Digests of what is built there, by name."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "hatchling", "build", "-d", "out"]
    done = subprocess.run(
        command, cwd=tree, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tree / "out").iterdir()}


def test_sdist_and_wheel_of_two_copies_of_the_tree_are_the_same_to_the_byte(tmp_path: Path) -> None:
    plain, odd = (
        built(copy_of_the_tree(tmp_path / name, is_odd=is_odd))
        for name, is_odd in (("plain", False), ("odd", True))
    )

    assert len(plain) == 2
    assert plain == odd
