"""Tests of the decisions about the containerd of a node."""

from __future__ import annotations

import tomllib

import pytest

from dockmirror.client_config.containerd_node import HostsDirectoryState, hosts_directory_state, owner_mark

DIRECTORY = "/etc/containerd/certs.d"
OLD, NEW = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"
READ, IGNORED, UNKNOWN = HostsDirectoryState.READ, HostsDirectoryState.IGNORED, HostsDirectoryState.UNKNOWN


def state(*files: str) -> HostsDirectoryState:
    """The state for configurations in the order in which containerd merges them."""
    return hosts_directory_state(map(tomllib.loads, files), DIRECTORY)


def config(plugin: str, path: str, version: int = 2) -> str:
    """A configuration with a ``config_path``."""
    return f'version = {version}\n[plugins."{plugin}".registry]\nconfig_path = "{path}"\n'


def runtime(plugin: str) -> str:
    """A drop-in that only adds a runtime."""
    return f'[plugins."{plugin}".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n'


@pytest.mark.parametrize("plugin", [OLD, NEW, "cri"])
def test_a_config_path_decides(plugin: str) -> None:
    """The directory is read when config_path names it, whatever the name of the plugin."""
    assert state(config(plugin, DIRECTORY)) is READ
    assert state(config(plugin, f"{DIRECTORY}/")) is READ
    assert state(config(plugin, "/etc/certs.d")) is IGNORED


def test_a_list_of_directories_is_read_by_containerd_1() -> None:
    """containerd 2.1 and newer may take a list for the name of one directory."""
    path = f"{DIRECTORY}:/etc/docker/certs.d"
    assert state(config(OLD, path)) is READ
    assert state(config(NEW, path, 3)) is UNKNOWN
    assert state(config(NEW, "/a:/b", 3)) is IGNORED


def test_no_config_path() -> None:
    """Versions that may have a default have version 3 of the file; the others read no directory."""
    assert state("version = 2\n") is IGNORED
    assert state("") is IGNORED
    assert state("version = 3\n") is UNKNOWN
    assert state(config(OLD, "")) is IGNORED


def test_an_imported_file_overrides() -> None:
    """The last config_path counts."""
    assert state("version = 2\n", config(OLD, DIRECTORY)) is READ
    assert state(config(OLD, DIRECTORY), config(OLD, "/other")) is IGNORED
    assert state(config(OLD, DIRECTORY), "version = 2\n") is READ


@pytest.mark.parametrize("plugin", [OLD, "cri"])
def test_containerd_1_takes_the_last_table_of_the_plugin(plugin: str) -> None:
    """A drop-in that adds a runtime takes the config_path of the files before it away."""
    before = config(plugin, DIRECTORY)
    assert state(before, runtime(plugin)) is IGNORED
    assert state(before, runtime("io.containerd.grpc.v1.other")) is READ
    assert state(before, runtime(plugin), before) is READ
    assert state(before, config(NEW, DIRECTORY), runtime(plugin)) is UNKNOWN


def test_containerd_2_merges_the_tables_of_the_plugin() -> None:
    """Version 3 of a file, or the name of the plugin, tells it from containerd 1."""
    assert state(config(NEW, DIRECTORY), runtime(NEW)) is READ
    assert state(config(NEW, DIRECTORY, 3), runtime(NEW), runtime(OLD)) is READ
    assert state(config(OLD, DIRECTORY), runtime(OLD), "version = 3\n") is READ


def test_strange_values_count_as_missing() -> None:
    """Nothing is assumed about tables that are none."""
    assert state('version = "2"\nplugins = 1\n') is IGNORED
    assert state(f'[plugins."{OLD}".registry]\nconfig_path = 1\n') is IGNORED


def test_marks_of_owners_differ() -> None:
    """No mark begins with that of another owner."""
    assert not owner_mark("a.b").startswith(owner_mark("a"))
    for wrong in ("", "a\nb"):
        with pytest.raises(ValueError, match="printable"):
            owner_mark(wrong)
