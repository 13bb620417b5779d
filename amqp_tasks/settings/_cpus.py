"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ("usable_cpus",)

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """CPUs this process may use, at least 1: the smaller of its affinity mask and its cgroup's CPU quota.

    A container with a quota of 2 CPUs on a machine with 64 gets 2, a quota of half a CPU gets 1. Read anew at
    each call, as both can change.
    """
    quota = cgroup_cpus(_CGROUP_ROOT, _OWN_CGROUP)
    affine = affine_cpus()
    return max(1, affine if quota is None else min(affine, math.ceil(quota)))


def affine_cpus() -> int:
    """CPUs in this process's affinity mask, or of the machine where there are no masks (macOS)."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def cgroup_cpus(root: Path, own: Path) -> float | None:
    """The tightest CPU quota of this process's cgroup and its ancestors (v2 and v1), or None without one.

    Args:
        root: where the cgroup file systems are mounted.
        own: the table of this process's groups, in the form of /proc/self/cgroup.
    """
    quotas = [
        quota for group in _groups(root, own) for quota in (_v2_quota(group), _v1_quota(group)) if quota
    ]
    return min(quotas, default=None)


def _groups(root: Path, own: Path) -> list[Path]:
    # Inside a container the table often names a path of the host that is not mounted here: the root counts always.
    groups = [root, root / "cpu", root / "cpu,cpuacct"]
    for line in _read(own).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "cpu", "cpu,cpuacct"):
            continue
        parts = Path(path.lstrip("/"))
        groups += [root / controllers / ancestor for ancestor in (parts, *parts.parents)]
    return groups


def _v2_quota(group: Path) -> float | None:
    quota, period = (*_read(group / "cpu.max").split(), "", "")[:2]
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _v1_quota(group: Path) -> float | None:
    quota, period = _read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
