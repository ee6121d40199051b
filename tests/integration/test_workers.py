"""Several processes serve as one."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .conftest import MakeDirectory, MakeMachine
from .parts.images import Image, image
from .parts.kept import blob_file
from .parts.machine import Machine
from .parts.mirror import Mirror
from .parts.plain import PlainClient
from .parts.process import free_port, listens, wait_until
from .parts.registry import Registry
from .pulls import skopeo_pulls

pytestmark = pytest.mark.integration


class Several(Mirror):
    """A mirror of two processes, unless a test wants one, and its operators' endpoint."""

    def __init__(self, directory: Path, machine: Machine, upstreams: Any, **settings: Any) -> None:
        self.operations = free_port()
        endpoint = f"tcp:{self.operations}:interface=127.0.0.1"
        super().__init__(directory, machine, upstreams, **{"workers": 2, "operations": endpoint, **settings})

    def told(self, path: str) -> str:
        """The document at a path of the operations endpoint."""
        client = PlainClient(f"http://127.0.0.1:{self.operations}")
        return client.bare("GET", path, None, {}).body.decode()

    def workers(self) -> list[int]:
        """The processes that serve."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(each) for each in children]

    def counted(self, name: str) -> float:
        """The sum of all samples of a metric."""
        lines = [line for line in self.told("/metrics").splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def cached(self, repository: str) -> int:
        """The bytes of a repository that came out of the cache this week, as the history knows them."""
        images = json.loads(self.told("/status.json"))["history"]["images"]
        return sum(each["cached_bytes"] for each in images if each["key"].endswith(f"/{repository}"))

    @property
    def reloads(self) -> int:
        """The number of times that new settings were in force."""
        return self.read_log().count("settings reloaded; ")

    def reload(self, **settings: Any) -> int:
        """Have new settings read, and return the number of those before."""
        before = self.reloads
        self.configure(**settings)
        os.kill(self.pid, signal.SIGHUP)
        return before

    def has_reloaded(self, before: int) -> bool:
        """Return True if other settings are in force than those before."""
        return self.reloads > before

    def holds(self, pushed: Image) -> bool:
        """Return True if the cache has all blobs of the image."""
        return all(blob_file(self.cache, each.digest).exists() for each in pushed.blobs)

    def is_whole(self) -> bool:
        """Return True if both workers serve."""
        return self.counted("dockmirror_workers ") == 2


def size(pushed: Image) -> int:
    """The bytes of its blobs."""
    return sum(len(each.data) for each in pushed.blobs)


@contextmanager
def two_workers(directory: Path, machine: Machine, registry: Registry) -> Iterator[Several]:
    """A mirror of two workers in front of an open registry."""
    with Several(directory, machine, {"open": {"url": registry.url}}, grace=3600) as mirror:
        wait_until(mirror.is_whole, "both serve")
        yield mirror
    assert mirror.failures() == ""


@pytest.fixture(scope="module")
def shared(directory: MakeDirectory, make_machine: MakeMachine, open_registry: Registry) -> Iterator[Several]:
    """A mirror for tests that do not stop it, and for the last one; that of the status comes first."""
    with two_workers(directory("workers"), make_machine(), open_registry) as mirror:
        yield mirror


@pytest.fixture
def restored(shared: Several) -> Iterator[Several]:
    """The same mirror, for a test that changes its settings; it has the old ones at the end."""
    networks = shared.setting("networks")
    yield shared
    before = shared.reload(networks=networks)
    wait_until(partial(shared.has_reloaded, before), "the old settings are in force")


@pytest.fixture
def several(tmp_path: Path, make_machine: MakeMachine, open_registry: Registry) -> Iterator[Several]:
    """A mirror of the test's own."""
    with two_workers(tmp_path, make_machine(), open_registry) as mirror:
        yield mirror


def test_status(shared: Several, open_registry: Registry, skopeo_machine: Machine) -> None:
    """The status is the sum of both workers' figures."""
    pushed = image("seen by several")
    open_registry.push("workers/status", pushed, "latest")
    skopeo_pulls(skopeo_machine, f"{shared.host('open')}/workers/status:latest", pushed)
    wait_until(lambda: shared.holds(pushed), "it is held")
    for _ in range(3):
        skopeo_pulls(skopeo_machine, f"{shared.host('open')}/workers/status:latest", pushed)
    told = json.loads(shared.told("/status.json"))
    assert told["processes"] == 2
    states = {each["name"]: each["state"] for each in told["registries"]}
    assert states.pop("open") == "reachable"
    assert set(states.values()) == {"unasked"}
    registry = next(each for each in told["registries"] if each["name"] == "open")
    assert registry["addresses"][0]["url"] == open_registry.url
    wait_until(lambda: shared.cached("workers/status") >= 3 * size(pushed), "the history has all of it")
    assert told["cache"]["limit"] > 0
    wait_until(lambda: json.loads(shared.told("/status.json"))["usage"] is not None, "it is measured")
    (used,) = json.loads(shared.told("/status.json"))["usage"]["registries"]
    assert used["contents"] == len(pushed.blobs) + 1


def test_pull(shared: Several, open_registry: Registry, skopeo_machine: Machine) -> None:
    """A pull is served by any of the workers, and the metrics are their sum."""
    pushed = image("by several")
    open_registry.push("workers/pull", pushed, "latest")
    for _ in range(3):
        skopeo_pulls(skopeo_machine, f"{shared.host('open')}/workers/pull:latest", pushed)
    lines = [line for line in shared.read_log().splitlines() if f" {shared.host('open')} " in line]
    assert shared.counted('dockmirror_requests_total{endpoint="manifest"') == len(
        [line for line in lines if "/manifests/" in line]
    )
    assert shared.counted('dockmirror_requests_total{endpoint="blob"') >= 2 * 3
    assert '"ready"' in shared.told("/readyz")


def test_page(shared: Several, open_registry: Registry) -> None:
    """The page of each worker lists the pulls of all."""
    tags = [f"number{number}" for number in range(12)]
    open_registry.push("workers/listed", image("listed"), *tags)
    for tag in tags:
        shared.client("open").manifest("workers/listed", tag)
    client = shared.client()

    def lists_all() -> bool:
        page = client.bare("GET", "/pulls", None, {}).body.decode()
        return all(f"workers/listed:{tag} " in page for tag in tags)

    for _ in range(6):
        wait_until(lists_all, "the pulls are in the history")


def test_a_twistd_without_output_has_all_lines_in_its_log(
    tmp_path: Path, make_machine: MakeMachine, open_registry: Registry
) -> None:
    """As in the background: the lines of all workers, also of one that replaces another, and tracebacks."""
    mirror = Several(tmp_path, make_machine(), {"open": {"url": open_registry.url}})
    log = tmp_path / "twistd.log"
    mirror.command[-3:-3] = [f"--logfile={log}"]
    mirror.command[:0] = ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh"]
    with mirror:
        for worker in mirror.workers():
            os.kill(worker, signal.SIGKILL)
            wait_until(mirror.is_whole, "both serve")
        for number in range(9):
            mirror.client().bare("GET", f"/v2/{number}", None, {})
        wait_until(lambda: log.read_text().count(" GET /v2/") > 9, "all requests are logged")


def test_a_clock_that_is_set_back_delays_no_replacement(
    tmp_path: Path, make_machine: MakeMachine, open_registry: Registry
) -> None:
    """By an hour, in the pause before two killed workers are replaced."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    machine = make_machine()
    machine.patch(
        "import time\nreal = time.time\n"
        f"time.time = lambda: real() - float(open({str(clock)!r}).read() or 0)\n"
    )
    with two_workers(tmp_path, machine, open_registry) as mirror:
        for worker in mirror.workers():
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: mirror.read_log().count("starting another one in") == 2, "both are missed")
        clock.write_text("3600")
        wait_until(lambda: len(mirror.workers()) == 2, "both are replaced", seconds=60)


def test_workers_share_what_was_imported(shared: Several) -> None:
    """They are forks of the first process, in whose memory most of theirs lies."""
    for each in shared.workers():
        fields = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in fields)}
        assert sizes["Shared_Clean"] + sizes["Shared_Dirty"] > sizes["Private_Clean"] + sizes["Private_Dirty"]


def test_killed_worker(shared: Several, open_registry: Registry, skopeo_machine: Machine) -> None:
    """A killed worker is replaced while the other serves, and the figures are not lost."""
    pushed = image("before one dies")
    open_registry.push("workers/dies", pushed, "latest")
    skopeo_pulls(skopeo_machine, f"{shared.host('open')}/workers/dies:latest", pushed)
    wait_until(lambda: shared.holds(pushed), "it is held")
    for _ in range(2):
        skopeo_pulls(skopeo_machine, f"{shared.host('open')}/workers/dies:latest", pushed)
    client = shared.client()
    for _ in range(10):
        assert client.bare("GET", "/v2/", None, {}).status == 200
    before = shared.counted("dockmirror_requests_total{")
    wait_until(lambda: shared.cached("workers/dies") >= 2 * size(pushed), "the history has all of it")
    first, second = shared.workers()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: len(shared.workers()) == 2 and first not in shared.workers(), "another one is there")
    wait_until(shared.is_whole, "it serves")
    assert second in shared.workers()
    assert "a worker exited, killed by signal 9" in shared.read_log()
    assert shared.counted("dockmirror_requests_total{") == before
    assert shared.cached("workers/dies") >= 2 * size(pushed)
    assert client.bare("GET", "/v2/", None, {}).status == 200


def test_new_settings(restored: Several) -> None:
    """New settings apply to both workers, wrong ones to none."""
    client = restored.client()

    def statuses() -> set[int]:
        return {client.bare("GET", "/v2/", None, {}).status for _ in range(30)}

    restored.reload(networks=["10.0.0.0/99"])
    wait_until(lambda: "cannot reload the settings" in restored.read_log(), "the log says so")
    assert statuses() == {200}
    before = restored.reload(networks=["10.0.0.0/8"])
    wait_until(partial(restored.has_reloaded, before), "the log says so")
    assert statuses() == {403}


def test_slow_worker(restored: Several) -> None:
    """New settings are reported as loaded once the slowest worker has them."""
    client = restored.client()

    def status() -> int:
        return client.bare("GET", "/v2/", None, {}).status

    busy, _ = restored.workers()
    os.kill(busy, signal.SIGSTOP)
    before = restored.reload(networks=["10.0.0.0/8"])
    wait_until(lambda: status() == 403, "the other one has them")
    # It is answered when the stopped one has had the time of any other call.
    assert json.loads(restored.told("/status.json"))["processes"] == 1
    assert not restored.has_reloaded(before)
    os.kill(busy, signal.SIGCONT)
    wait_until(partial(restored.has_reloaded, before), "the log says so")
    assert {status() for _ in range(30)} == {403}


def test_rate_limit(tmp_path: Path, make_machine: MakeMachine, open_registry: Registry) -> None:
    """The rate limit counts the requests to all workers."""
    access = {"requests": 20, "window": 3600}
    upstreams = {"open": {"url": open_registry.url}}
    with Several(tmp_path, make_machine(), upstreams, access=access) as mirror:
        wait_until(mirror.is_whole, "both serve")
        client = mirror.client()
        statuses = [client.bare("GET", "/v2/", None, {}).status for _ in range(40)]
    assert 15 <= statuses.count(200) < 20  # the mirror was asked before whether it answers
    assert statuses[-1] == 429


@pytest.mark.parametrize("workers", [1, 2])
def test_budget(tmp_path: Path, make_machine: MakeMachine, open_registry: Registry, workers: int) -> None:
    """The status has what a client network has used, whichever worker counted it; a new budget is unused."""
    pushed = image("of a budget")
    open_registry.push("workers/budget", pushed, "latest")
    upstreams = {"open": {"url": open_registry.url}}
    budget = {"images": "**", "pulls": 10, "window": "1h"}
    with Several(tmp_path, make_machine(), upstreams, budget=[budget], workers=workers) as mirror:
        wait_until(lambda: json.loads(mirror.told("/status.json"))["processes"] == workers, "all serve")
        client = mirror.client("open")
        statuses = [client.manifest("workers/budget", "latest").status for _ in range(12)]
        assert statuses == [*[200] * 10, 429, 429]
        wait_until(lambda: used(mirror)["refused"] == 2, "the status is read anew")
        shown = used(mirror)
        assert (shown["networks"], shown["used_up"]) == (1, 1)
        (network,) = shown["most"]
        assert (network["client"], network["share"], network["pulls"]) == ("127.0.0.1", 1.0, 10)
        assert "Requests refused since the start: 2." in mirror.told("/status")
        before = mirror.reload(budget=[{**budget, "images": "**/budget"}])
        wait_until(partial(mirror.has_reloaded, before), "they are in force")
        wait_until(lambda: used(mirror)["images"] == "**/budget", "the status is read anew")
        assert used(mirror)["networks"] == 0


def used(mirror: Several) -> dict[str, Any]:
    """The use of the mirror's budget."""
    (budget,) = json.loads(mirror.told("/status.json"))["budgets"]
    return dict(budget)


def test_new_settings_under_load(shared: Several) -> None:
    """New settings cost no client a request."""
    statuses: list[int] = []
    going = threading.Event()

    def ask() -> None:
        client = shared.client()
        while not going.is_set():
            statuses.append(client.bare("GET", "/v2/", None, {}).status)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for each in clients:
        each.start()
    for _ in range(3):
        wait_until(partial(shared.has_reloaded, shared.reload()), "they are in force")
        before = len(statuses)
        wait_until(partial(has_grown, statuses, before + 8), "requests are answered by these")
    going.set()
    for each in clients:
        each.join()
    assert set(statuses) == {200}


def has_grown(of: list[int], size: int) -> bool:
    """Return True if the list has more elements than that."""
    return len(of) > size


def test_the_end(several: Several, open_registry: Registry) -> None:
    """A transfer that runs is finished first, nothing new is begun, and then nobody is left."""
    pushed = image("at the end", layers=(30_000_000,))
    open_registry.push("workers/end", pushed, "latest")
    layer = pushed.layers[0]
    workers = several.workers()
    with closing(http.client.HTTPConnection("127.0.0.1", several.port, timeout=30)) as connection:
        path, host = f"/v2/workers/end/blobs/{layer.digest}", several.host("open")
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        first = response.read(100_000)
        os.kill(several.pid, signal.SIGTERM)
        wait_until(lambda: not listens("127.0.0.1", several.port), "nobody listens")
        for worker in workers:  # the first process has told them already
            with suppress(ProcessLookupError):  # one without a transfer may have ended
                os.kill(worker, signal.SIGTERM)
        assert first + response.read() == layer.data
    wait_until(lambda: not any(_runs(each) for each in workers), "all have ended")


def test_workers_do_not_outlive_the_first(shared: Several) -> None:
    """When it is killed, they end: what comes next finds the port free."""
    workers = shared.workers()
    os.kill(shared.pid, signal.SIGKILL)
    wait_until(lambda: not any(_runs(each) for each in workers), "they have ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
