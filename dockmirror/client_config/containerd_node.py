"""The containerd of a node: which files there are ours, and whether it reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

_PLUGINS = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri")
"""The plugin that pulls images for the kubelet, as containerd 2, 1.3 and older name it."""
_VERSION_OF_CONTAINERD_2 = 3
"""The version of configuration files that only containerd 2 reads."""


class HostsDirectoryState(Enum):
    """The answer to the question whether containerd reads a directory of ``hosts.toml`` files."""

    READ = "read"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


def owner_mark(owner: str) -> str:
    """Return the first lines of every file that *owner* writes, by which they are recognized.

    :raises ValueError: when the owner's name would not fit on a line.
    """
    if not owner or not owner.isprintable():
        raise ValueError("expected a name of printable characters")
    return (
        f"# Written by 'dockmirror node' for {owner}.\n"
        "# It is written again and removed as long as the line above is here.\n"
    )


def hosts_directory_state(configurations: Iterable[Mapping[str, Any]], directory: str) -> HostsDirectoryState:
    """Return whether containerd reads *directory*, by its configuration and those that it imports, in order.

    containerd 1 takes the whole table of a plugin from the last file that has one; containerd 2 merges them.
    https://github.com/containerd/containerd/pull/9982

    Without ``config_path``, containerd before 2.2 reads no directory.  From 2.1 on it may take a list of
    several for the name of one, and read none of them; the default of 2.2 is such a list.
    https://github.com/containerd/containerd/issues/12415
    """
    files = list(configurations)
    is_new = any(_integer(each.get("version")) >= _VERSION_OF_CONTAINERD_2 for each in files)
    paths: dict[str, str] = {}
    for tables in (_table(each, "plugins") for each in files):
        for plugin in (each for each in _PLUGINS if each in tables):
            path = _config_path(tables, plugin)
            if path or not (is_new or plugin == _PLUGINS[0]):
                paths[plugin] = path
    plugin = next((each for each in _PLUGINS if paths.get(each)), "")
    listed = [path.rstrip("/") for path in paths.get(plugin, "").split(":") if path]
    if listed and directory not in listed:
        return HostsDirectoryState.IGNORED
    if not listed:
        return HostsDirectoryState.UNKNOWN if is_new else HostsDirectoryState.IGNORED
    is_read = all(paths.values()) and (len(listed) == 1 or plugin != _PLUGINS[0])
    return HostsDirectoryState.READ if is_read else HostsDirectoryState.UNKNOWN


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _config_path(tables: Mapping[str, Any], plugin: str) -> str:
    path = _table(_table(tables, plugin), "registry").get("config_path")
    return path if isinstance(path, str) else ""


def _table(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}
