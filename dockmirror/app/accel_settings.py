"""The group of a proxy in front that sends the cache's files itself, checked at start."""

from __future__ import annotations

import os
from pathlib import Path

from ..config.settings import ConfigurationError, Settings
from ..store.store_directory import closed_directories
from ..system.posix import find_group


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
