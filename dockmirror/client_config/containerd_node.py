"""The containerd of a node: which files there are ours, and whether it reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

_PLUGINS = ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri", "cri")
"""The plugin that pulls images for the kubelet, as containerd 2, 1.3 and older name it."""
_VERSION_WITH_DEFAULT = 3
"""The version of configuration files whose containerd may have a default ``config_path``."""


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

    Without ``config_path``, containerd before 2.2 reads no directory.  From 2.1 on it may take a list of
    several for the name of one, and read none of them; the default of 2.2 is such a list.
    https://github.com/containerd/containerd/issues/12415
    """
    version, plugin, paths = 0, "", ""
    for each in configurations:
        version = max(version, _integer(each.get("version")))
        plugin, paths = _config_path(each) or (plugin, paths)
    listed = [path.rstrip("/") for path in paths.split(":") if path]
    if listed and directory not in listed:
        return HostsDirectoryState.IGNORED
    if len(listed) == 1 or (listed and plugin != _PLUGINS[0]):
        return HostsDirectoryState.READ
    is_new = bool(listed) or version >= _VERSION_WITH_DEFAULT
    return HostsDirectoryState.UNKNOWN if is_new else HostsDirectoryState.IGNORED


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _config_path(configuration: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the plugin that has a ``config_path``, and the path."""
    for plugin in _PLUGINS:
        path = _table(_table(_table(configuration, "plugins"), plugin), "registry").get("config_path")
        if path and isinstance(path, str):
            return plugin, path
    return None


def _table(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}
