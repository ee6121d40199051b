"""``dockmirror node``: keep containerd's files on a Kubernetes node, and take them away."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import ssl
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import click

from ..client_config.clients import CLIENTS
from ..client_config.containerd_node import HostsDirectoryState, hosts_directory_state, owner_mark
from ..client_config.snippet import MirrorAddress, Snippet
from ..config.load import load_names
from .client_command import is_below, parse_mirror_address, replace_text, require_below
from .command_context import Context

_FILE = "hosts.toml"
_CONFIGURATION = "/etc/containerd/config.toml"
_DIRECTORY = "/etc/containerd/certs.d"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_POLL_SECONDS = 2.0
_PATH = click.Path(path_type=Path)

_root_option = click.option(
    "--root", type=_PATH, default=Path("/"), show_default=True, help="Where the node's files are mounted."
)
_directory_option = click.option(
    "--directory", metavar="PATH", default=_DIRECTORY, show_default=True,
    help="containerd's directory of hosts.toml files, as the node names it.",
)  # fmt: skip
_owner_option = click.option(
    "--owner", default="dockmirror", show_default=True,
    help="Name in the first line of each file; files of other owners are left alone.",
)  # fmt: skip


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: an object a line.")


@click.group("node", short_help="Configure the containerd of a Kubernetes node.")
def node() -> None:
    """Write the files by which the containerd of this node pulls through the mirror, or remove them.

    The Helm chart runs these commands on each node.
    """


@node.command("configure")
@_json_option
@click.option(
    "--mirror", "address", metavar="URL", required=True,
    help="The mirror's address for the node; tcp://, as in Kubernetes' variables of a Service, means HTTP.",
)  # fmt: skip
@_root_option
@_directory_option
@_owner_option
@click.option(
    "--containerd-config", "configuration", metavar="PATH", default=_CONFIGURATION, show_default=True,
    help="containerd's own file, as the node names it; it is only read.",
)  # fmt: skip
@click.option("--every", type=click.FloatRange(min=1), help="Check again after so many seconds, for ever.")
@click.option("--ready-file", type=_PATH, help="Exists as long as containerd reads the files.")
@click.pass_obj
def configure(
    context: Context, /, as_json: bool, address: str, owner: str, every: float | None, **places: Any
) -> None:
    """Write a hosts.toml for each registry of the mirror's settings.

    Files with another first line are left as they are.  Files that this command wrote for registries that are
    no longer mirrored are removed.  Nothing is removed when the command ends: use 'dockmirror node remove'.

    Exit status: 0; 1 when a file was left as it is or cannot be written, or when containerd does not read
    the directory.  A configuration of containerd that is missing or cannot be read is only reported: since
    version 2.2 containerd may read the directory by default.
    """
    url = f"http://{address.removeprefix('tcp://')}" if address.startswith("tcp://") else address
    mirror = parse_mirror_address(load_names(context.options, context.environ), url)
    hosts = _HostsDirectory(places["root"], places["directory"], owner)
    _mark_ready(places["ready_file"], is_ready=False)  # one of an earlier process in the same pod
    report = _Report(as_json)
    with _ends_at_sigterm(status=0), hosts.lock(report):
        while True:
            is_done = hosts.write(mirror, report)
            is_read = _check_configuration(places["root"], places["configuration"], hosts.name, report)
            report.end_round()
            _mark_ready(places["ready_file"], is_read)
            if every is None:
                raise SystemExit(0 if is_done and is_read else 1)
            time.sleep(every)


@node.command("remove")
@_json_option
@_root_option
@_directory_option
@_owner_option
def remove(as_json: bool, root: Path, directory: str, owner: str) -> None:
    """Remove the files that 'dockmirror node configure' wrote, once it has ended on this node.

    Exit status: 0; 1 when a file cannot be removed.
    """
    hosts = _HostsDirectory(root, directory, owner)
    if hosts.path.is_dir():
        report = _Report(as_json)
        with _ends_at_sigterm(), hosts.lock(report):
            raise SystemExit(0 if hosts.remove(report) else 1)


@node.command("wait")
@_json_option
@click.argument("daemonset")
@click.option("--service-account", type=_PATH, default=_SERVICE_ACCOUNT, hidden=True)
@click.pass_obj
def wait(context: Context, as_json: bool, daemonset: str, service_account: Path) -> None:
    """Wait until the pods of a DaemonSet are ready on all nodes; runs in a pod of the same namespace.

    Exit status: 0 when they are.
    """
    report = _Report(as_json)
    with _ends_at_sigterm():
        while not _is_finished(daemonset, service_account, context.environ, report):
            report.end_round()
            time.sleep(_POLL_SECONDS)


def _is_finished(daemonset: str, account: Path, environ: Mapping[str, str], report: _Report) -> bool:
    try:
        state = _read_daemonset(daemonset, account, environ)
    except (OSError, HTTPException, ValueError) as error:
        report.add("the API server", str(error))
        return False
    status = state.get("status", {})
    ready, wanted = status.get("numberReady", 0), status.get("desiredNumberScheduled", 0)
    report.add(daemonset, f"{ready} of {wanted} nodes are done")
    return is_ready_everywhere(state)


@contextmanager
def _ends_at_sigterm(status: int = 128 + signal.SIGTERM) -> Iterator[None]:
    """Let SIGTERM end the process even as the first of a container, where the kernel ignores it otherwise."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(status)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Report:
    """Prints each line when it is new, and not again as long as it stays true."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._before: set[tuple[str, str]] = set()
        self._now: set[tuple[str, str]] = set()

    def add(self, subject: str, message: str) -> None:
        """Print a line about a subject, mostly a file, at once: others wait for it, or watch it."""
        if (subject, message) not in self._before:
            line = {"subject": subject, "message": message}
            click.echo(json.dumps(line) if self._as_json else f"{subject}: {message}")
        self._now.add((subject, message))

    def end_round(self) -> None:
        """Forget the lines that were not added again."""
        self._before, self._now = self._now, set()


class _HostsDirectory:
    """containerd's directory on the node, of which only the files with the owner's mark are touched."""

    def __init__(self, root: Path, directory: str, owner: str) -> None:
        try:
            self._mark = owner_mark(owner)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--owner") from None
        self._root = root
        self.name = directory.rstrip("/")
        self.path = root / self.name.lstrip("/")

    @contextmanager
    def lock(self, report: _Report) -> Iterator[None]:
        """Wait until no other process holds the directory; the kernel frees it when a process ends.

        So the files are not written again behind a removal by a process that is still to be stopped.
        """
        try:
            require_below(self._root, self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report.add(str(self.path), "waiting for the process that keeps it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(self, mirror: MirrorAddress, report: _Report) -> bool:
        """Write the file of each registry, and remove ours of others.

        :returns: True when every registry has its file.
        """
        texts = {self.path / Path(each.path).parent.name: each.text for each in _hosts_files(mirror)}
        is_done = True
        for registry, text in texts.items():
            file = registry / _FILE
            try:
                require_below(self._root, file)
                if file.exists() and not self._is_own(file):
                    if file.read_text("utf-8", errors="replace") != text:
                        report.add(str(file), "left as it is, because something else wrote it")
                        is_done = False
                elif replace_text(file, self._mark + text):
                    report.add(str(file), "written")
            except OSError as error:
                report.add(str(file), f"cannot be written: {error.strerror}")
                is_done = False
        return self._remove_from(self._registries() - set(texts), report) and is_done

    def remove(self, report: _Report) -> bool:
        """Remove the files with the mark, and the directories that are empty then.

        :returns: True when none is left.
        """
        return self._remove_from(self._registries(), report)

    def _registries(self) -> set[Path]:
        found = self.path.glob(f"*/{_FILE}")
        return {file.parent for file in found if is_below(self._root, file)}

    def _remove_from(self, registries: set[Path], report: _Report) -> bool:
        is_done = True
        for registry in sorted(registries):
            file = registry / _FILE
            try:
                if self._is_own(file):
                    file.unlink()
                    report.add(str(file), "removed")
                    if not any(registry.iterdir()):
                        registry.rmdir()
            except OSError as error:
                report.add(str(file), f"cannot be removed: {error.strerror}")
                is_done = False
        return is_done

    def _is_own(self, file: Path) -> bool:
        return file.read_text("utf-8", errors="replace").startswith(self._mark)


def _hosts_files(mirror: MirrorAddress) -> Iterator[Snippet]:
    return (each for each in CLIENTS["containerd"].files(mirror) if each.path.endswith(_FILE))


def _mark_ready(file: Path | None, is_ready: bool) -> None:
    if file is not None:
        if is_ready:
            file.touch()
        else:
            file.unlink(missing_ok=True)


def _check_configuration(root: Path, path: str, directory: str, report: _Report) -> bool:
    """Report when containerd does not read the directory, or may not.

    :returns: False when it does not.
    """
    reason = ""
    try:
        state = hosts_directory_state(_read_configurations(root, path), directory)
    except (OSError, ValueError) as error:
        state = HostsDirectoryState.UNKNOWN
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}; "
    if state is not HostsDirectoryState.READ:
        verb = "does not" if state is HostsDirectoryState.IGNORED else "may not"
        report.add(
            path,
            f"{reason}containerd {verb} read {directory}, and then it pulls past the mirror. Let config_path"
            " name this directory alone, in each imported file with a table of the plugin too, remove"
            f" registry.mirrors and registry.configs, and restart containerd:\n{_config_lines(directory)}",
        )
    return state is not HostsDirectoryState.IGNORED


def _config_lines(directory: str) -> str:
    [config] = (each for each in CLIENTS["containerd"].snippets(_NO_REGISTRIES) if each.name == "config")
    return config.text.replace(_DIRECTORY, directory).rstrip("\n")


_NO_REGISTRIES = MirrorAddress("http", "localhost", ())


def _read_configurations(root: Path, path: str) -> Iterator[Mapping[str, Any]]:
    """Yield containerd's configuration and what it imports, in the order in which containerd merges them."""
    pending, seen = [root / path.lstrip("/")], set[Path]()
    while pending:
        file = pending.pop(0)
        if file in seen:
            continue
        seen.add(file)
        require_below(root, file)
        configuration = tomllib.loads(file.read_text("utf-8"))
        yield configuration
        for pattern in configuration.get("imports", []):
            parent = root if pattern.startswith("/") else file.parent
            pending += sorted(parent.glob(pattern.lstrip("/")))


def _read_daemonset(name: str, account: Path, environ: Mapping[str, str]) -> Mapping[str, Any]:
    """Ask the API server of the cluster that this pod runs in."""
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    connection = HTTPSConnection(host, int(port), timeout=10, context=context)
    namespace = (account / "namespace").read_text("utf-8").strip()
    try:
        headers = {"Authorization": f"Bearer {(account / 'token').read_text('utf-8').strip()}"}
        connection.request("GET", f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}", headers=headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"status {response.status} for the DaemonSet {name}")
    state = json.loads(body)
    if not isinstance(state, dict):
        raise ValueError("expected an object")
    return state


def is_ready_everywhere(daemonset: Mapping[str, Any]) -> bool:
    """Return True when the controller has seen the DaemonSet, and its pod is ready on each node."""
    status = daemonset.get("status", {})
    is_seen = status.get("observedGeneration", 0) >= daemonset["metadata"]["generation"]
    return bool(is_seen and status.get("numberReady", 0) >= status.get("desiredNumberScheduled", 0))
