"""The usable CPUs follow quotas of both kinds of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amqp_tasks.settings import _cpus, usable_cpus


def _tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


@pytest.mark.parametrize(
    ("files", "own", "cpus"),
    [
        ({}, "", None),
        ({"cpu.max": "max 100000\n"}, "0::/\n", None),
        ({"cpu.max": "200000 100000\n"}, "0::/\n", 2.0),
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 0.5),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, "0::/a/b\n", 1.5),
        ({"a/cpu.max": "300000 100000", "cpu.max": "100000 100000"}, "0::/a\n", 1.0),
        ({"cpu.max": "100000 100000\n"}, "0::/not/mounted/here\n", 1.0),
        ({"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"}, "4:cpu:/x\n", 2.5),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "4:cpu,cpuacct:/gone\n",
            1.0,
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", None),
        ({"cpu.max": "nonsense"}, "broken\n", None),
        ({"cpu.max": "100000 0"}, "0::/\n", None),
    ],
)
def test_quota_is_read_from_the_cgroup(
    tmp_path: Path, files: dict[str, str], own: str, cpus: float | None
) -> None:
    _tree(tmp_path, files)
    _tree(tmp_path, {"own": own})

    assert _cpus.cgroup_cpus(tmp_path, tmp_path / "own") == cpus


def test_part_of_a_cpu_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tree(tmp_path, {"cpu.max": "10000 100000", "own": "0::/"})
    monkeypatch.setattr(_cpus, "_CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(_cpus, "_OWN_CGROUP", tmp_path / "own")

    assert usable_cpus() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity masks on this system")
def test_affinity_bounds_the_cpus() -> None:
    assert 1 <= usable_cpus() <= len(os.sched_getaffinity(0))
