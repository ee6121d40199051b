"""The budget of the cache, from the settings and the size of its file system."""

from __future__ import annotations

import os
from pathlib import Path

from ..config.settings import ConfigurationError, Settings
from ..store.eviction.store_budget import Budget


def existing_parent(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def disk_size(settings: Settings) -> int | None:
    """Return the size of the file system that the cache lies on, or will lie on; None without a cache."""
    if settings.cache is None:
        return None
    try:
        status = os.statvfs(existing_parent(settings.cache))
    except OSError:
        return None
    return status.f_blocks * status.f_frsize


def has_cache(settings: Settings) -> bool:
    """Return whether the mirror caches anything; otherwise it is a relay."""
    return settings.cache is not None and (settings.cache_size is None or bool(settings.cache_size))


def check_without_cache(settings: Settings) -> None:
    """Check the settings of a mirror that has no cache.

    :raises ConfigurationError: for those that need one.
    """
    offline = {f"upstreams.{name}.offline": each.offline for name, each in settings.upstreams.items()}
    needs = {
        "store: needs a local cache": settings.store,
        **{
            f"{key}: needs a cache to serve from": is_offline
            for key, is_offline in {"offline": settings.offline, **offline}.items()
        },
        "accel: needs a cache, whose files nginx sends": settings.accel != "off",
        "policy: needs a cache, which remembers tags": settings.policy,
        "sync: needs a cache to pull into": settings.sync,
        "redirect: needs a cache, which knows what is public": settings.near_buckets,
    }
    problems = [f"{need}; set cache_size above 0" for need, is_set in needs.items() if is_set]
    if problems:
        raise ConfigurationError(*problems)


def make_budget(root: Path, settings: Settings) -> Budget:
    """Return how much the cache may hold, and what it must leave free on the disk."""
    status = os.statvfs(root)
    default = Budget.default(status)
    total = status.f_blocks * status.f_frsize
    size = settings.cache_size.of(total) if settings.cache_size is not None else default.size
    if settings.min_free is None:
        return Budget(size, default.free_bytes, default.free_inodes)
    share = settings.min_free.of(total) / total if total else 0.0
    return Budget(size, settings.min_free.of(total), int(status.f_files * share))
