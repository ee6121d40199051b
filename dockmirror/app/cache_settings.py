"""The budget, retention, group and bucket of the cache, from the settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.image_rules import RetentionSettings
from ..config.settings import ConfigurationError, Settings
from ..oci.digest import Digest
from ..oci.pull_rule import PullRule
from ..store.eviction.retention import Retention, RetentionRule
from ..store.eviction.store_budget import Budget
from ..store.store_directory import closed_directories
from ..system.networks import Region, parse_networks
from ..system.posix import find_group

if TYPE_CHECKING:
    from ..store.bucket.blocking_bucket import BucketAddress


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
        "peers: needs a cache for what the peers send": settings.peers,
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


def make_retention(settings: Settings) -> Retention:
    """Return the rules; lock files are read whenever they are applied."""
    locks = [policy.lock for policy in settings.policy if policy.lock is not None]
    needed: Callable[[], Collection[Digest]] = partial(_read_locked, locks)
    return Retention([_make_rule(n, each) for n, each in enumerate(settings.retention, 1)], needed)


def _make_rule(number: int, rule: RetentionSettings) -> RetentionRule:
    return RetentionRule(
        name=f"retention rule {number}",
        pattern=PullRule.parse(rule.images),
        unused=rule.unused,
        tags=rule.tags,
        quota=rule.quota,
        repository_quota=rule.repository_quota,
    )


def _read_locked(locks: Sequence[Path]) -> Collection[Digest]:
    """Return the digests in lock files, as they are now.

    :raises OSError: when one cannot be read; then nothing must be deleted by rules.
    """
    from ..admission.lock_file import LockReader  # most commands read no lock file

    found: set[Digest] = set()
    for path in locks:
        found.update(each.digest for each in LockReader(path).current().images.values())
    return found


def check_cache_group(root: Path, settings: Settings) -> int | None:
    """Return the number of the group that may read the blobs of a cache, or None if there is none.

    :raises ConfigurationError: when the mirror cannot give files to the group, or when its members cannot
        reach the cache.
    """
    if settings.cache_group is None:
        return None
    group = find_group(settings.cache_group)
    if os.geteuid() != 0 and group not in (os.getegid(), *os.getgroups()):
        raise ConfigurationError(
            f"cache_group: the mirror's user does not belong to the group {settings.cache_group}, and cannot"
            " give files to it; name a group that both this user and nginx's belong to"
        )
    closed = list(closed_directories(root, group))
    if closed:
        raise ConfigurationError(
            f"cache_group: the group {settings.cache_group} cannot enter {closed[-1]}, above the cache;"
            " let it enter (chmod o+x), or set 'cache' to another directory"
        )
    return group


def bucket_address(settings: Settings) -> BucketAddress | None:
    """Return the address of the bucket; None if there is none."""
    if settings.store is None:
        return None
    from ..store.bucket.blocking_bucket import BucketAddress

    return BucketAddress(settings.store, settings.store_endpoint)


def client_regions(settings: Settings) -> Sequence[Region]:
    """Return the regions of clients, in the order of the settings."""
    return [Region(each.region, tuple(parse_networks(each.networks))) for each in settings.near_buckets]


def check_bucket_settings(settings: Settings) -> None:
    """Check the settings of the bucket.

    :raises ConfigurationError: when there is no bucket to which they apply, or its extra is not installed.
    """
    if settings.store is None:
        for key in ("store_endpoint", "store_days", "redirect"):
            if getattr(settings, key) and not (key == "redirect" and settings.near_buckets):
                raise ConfigurationError(f"{key}: needs a store; set 'store' to a bucket, or remove {key}")
        if not settings.near_buckets:
            return
    from ..store.bucket.blocking_bucket import is_available

    if not is_available():
        key = "redirect" if settings.store is None else "store"
        raise ConfigurationError(f"{key}: needs the extra 'objects': pip install 'dockmirror[objects]'")
