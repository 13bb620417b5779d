"""Where workers can run."""

from __future__ import annotations

from amqp_tasks.errors import ConfigurationError

__all__ = ("check_platform",)


def check_platform(platform: str) -> None:
    """Refuse to run a worker, whatever its pool, on a system that lacks what it is made of.

    Args:
        platform: as of `sys.platform`.

    Raises:
        ConfigurationError: it is Windows.
    """
    if platform == "win32":
        raise ConfigurationError(
            "workers cannot run on Windows, where processes cannot be forked: run them on Linux or macOS, in WSL or in a"
            " container; tasks can be called from here"
        )
