"""The service: its options, its parts, its end."""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from pwd import getpwuid
from typing import Any, cast

import pytest
from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import IService, MultiService, Service
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.scripts._twistd_unix import ServerOptions

from dockmirror.app.client_facing import registry_names
from dockmirror.app.hosts import hosts
from dockmirror.app.service import Options, makeService, mirror
from dockmirror.app.services import DrainConnections, OrderedMultiService
from dockmirror.app.settings_reload import SettingsReload
from dockmirror.app.telemetry import Telemetry
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings, UpstreamSettings
from dockmirror.system.graceful_shutdown import GracefulShutdown
from dockmirror.web.recent_requests import RecentRequests
from dockmirror.web.shared_tables import SharedTables
from dockmirror.workers.worker_pool import WorkerPool
from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of whoever runs the tests, and nothing kept outside of them."""
    for name in os.environ:
        if name.startswith("DOCKMIRROR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKMIRROR_CACHE", str(tmp_path / "cache"))


def settings_of(*arguments: str) -> Settings:
    """What a command line decides."""
    options = Options()
    options.parseOptions(arguments)
    return options.read()


class TestOptions:
    """The command line."""

    def test_none(self) -> None:
        """Means the defaults."""
        assert settings_of() == load({}, os.environ)

    def test_all(self, tmp_path: Path) -> None:
        """Are taken, those that may be repeated in their order."""
        file = tmp_path / "dockmirror.toml"
        file.write_text('domain = "file.example"\nnames = ["mirror.lan"]\n')
        settings = settings_of(
            "--config", str(file), "--domain", "m.example", "--hosts", "{name}-{domain}", "--listen", "tcp:1",
            "--listen", "tcp:2", "--upstream", "a=http://a:1", "--upstream", "b=https://b", "--default", "a",
            "--networks", "10.0.0.0/8", "--networks", "public", "--grace", "5", "--log-format", "json",
        )  # fmt: skip
        assert settings.host("a") == "a-m.example"
        assert (settings.names, settings.listen) == (("mirror.lan",), ("tcp:1", "tcp:2"))
        assert [settings.upstreams[name].url for name in "ab"] == ["http://a:1", "https://b"]
        assert (settings.default, settings.networks) == ("a", ("10.0.0.0/8", "public"))
        assert (settings.grace, settings.log_format) == (5, "json")

    def test_the_environment_counts_less(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Than the command line."""
        monkeypatch.setenv("DOCKMIRROR_DOMAIN", "env.example")
        monkeypatch.setenv("DOCKMIRROR_GRACE", "7")
        settings = settings_of("--domain", "line.example")
        assert (settings.domain, settings.grace) == ("line.example", 7)

    @pytest.mark.parametrize(
        ("arguments", "key"),
        [
            (["--domain", "a/b"], "domain"),
            (["--upstream", "nothing"], "upstream"),
            (["--upstream", "a=ftp://a"], "upstreams.a.url"),
            (["--default", "nope"], "default"),
            (["--grace", "soon"], "grace"),
            (["--networks", "lan"], "networks"),
            (["--log-format", "xml"], "log_format"),
            (["--config", "/nowhere.toml"], "/nowhere.toml"),
        ],
    )
    def test_what_cannot_be(self, arguments: list[str], key: str) -> None:
        """Is refused in one line that names the key."""
        with pytest.raises(SystemExit) as raised:
            settings_of(*arguments)
        assert key in str(raised.value)
        assert "\n" not in str(raised.value)


class TestMirror:
    """The service assembled."""

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_it_is_a_service(self, workers: str) -> None:
        """That twistd can start, with one listener for each endpoint, and one where none is named."""
        for arguments, listeners in ((("--listen", "tcp:0", "--listen", "tcp:0"), 2), ((), 1)):
            options = Options()
            options.parseOptions(["--workers", workers, *arguments])
            service = makeService(options)
            assert IService.providedBy(service)
            operations, serving, *kinds = [type(part) for part in cast(MultiService, service)]
            assert operations is StreamServerEndpointService
            assert serving is (OrderedMultiService if workers == "1" else WorkerPool)
            assert kinds == [*[StreamServerEndpointService] * listeners, SettingsReload, GracefulShutdown]

    def test_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Are one for each core, and not more than four."""
        for cores, expected in ((1, OrderedMultiService), (2, 2), (64, 4)):
            monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
            service = next(each for each in mirror(partial(load, {"operations": "none"}, os.environ), {}))
            assert (service.count if isinstance(service, WorkerPool) else type(service)) == expected

    @pytest.mark.parametrize(
        "endpoint", ["nonsense:1", "tcp:x", "tcp:1:no=such", "ssl:1:privateKey=/nowhere"]
    )
    def test_an_endpoint_that_is_none(self, endpoint: str) -> None:
        """Is refused at start, in one line that names the key."""
        with pytest.raises(ConfigurationError, match="listen: expected a server endpoint"):
            mirror(partial(load, {"listen": [endpoint]}, os.environ), {})
        options = Options()
        options.parseOptions(["--listen", endpoint])
        with pytest.raises(SystemExit, match=r"^dockmirror: listen: ") as raised:
            makeService(options)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (
                CannotListenError("127.0.0.1", 9464, OSError(98, "Address in use")),
                r".*127\.0\.0\.1:9464.*in use",
            ),
            (OverflowError("bind(): port must be 0-65535."), "bind.*: port must be 0-65535"),
            (FileNotFoundError(2, "No such file", "27533", None, b"/no/x.lock"), "/no/x.lock: No such file$"),
            (PermissionError(13, "Permission denied", "/run/x"), "/run/x: Permission denied$"),
        ],
    )
    @pytest.mark.parametrize("key", ["listen.0", "operations"])
    def test_where_it_cannot_listen(self, key: str, error: Exception, reason: str) -> None:
        """Ends it at start, in one line that names the setting and the port or the file."""

        class Taken(Service):
            def privilegedStartService(self) -> None:
                raise error

        services, taken = OrderedMultiService(), Taken()
        taken.setName(key)
        taken.setServiceParent(services)
        with pytest.raises(SystemExit, match=f"^dockmirror: {key}: {reason}") as raised:
            services.privilegedStartService()
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_the_operators_endpoint(self, workers: str) -> None:
        """Begins before the mirror listens and ends when all has ended; an empty text is none at all."""
        for operations, names in (("none", []), ("tcp:0", ["operations"])):
            settings = {"operations": operations, "listen": ["tcp:0"], "workers": workers}
            service = mirror(partial(load, settings, os.environ), {})
            assert [part.name for part in service if part.name][:1] == (names or ["listen.0"])

    def test_an_operators_endpoint_that_is_none(self) -> None:
        """Is refused as any other, by its own key."""
        with pytest.raises(ConfigurationError, match="operations: expected a server endpoint, not 'tcp:x'"):
            mirror(partial(load, {"operations": "tcp:x"}, os.environ), {})

    def test_an_authority_that_is_none(self, tmp_path: Path) -> None:
        """As well."""
        file = tmp_path / "ca.pem"
        file.write_text("no certificate")
        upstream = {"url": "https://lan", "ca_file": str(file)}
        with pytest.raises(ConfigurationError, match="ca_file: expected PEM certificates"):
            mirror(partial(load, {"upstreams": {"lan": upstream}}, os.environ), {})

    def test_each_upstream_has_connections_of_its_own(self) -> None:
        """What may be connected to for one may not be for another."""
        seen: list[UpstreamSettings] = []

        def agent_for(upstream: UpstreamSettings, *_: object) -> Any:
            seen.append(upstream)
            return object()

        settings = load({}, {})
        memory = SharedTables.alone()
        watched = Telemetry.of(memory, Clock())
        hosts(settings, Clock(), agent_for, None, watched, {}, RecentRequests(Clock(), memory.recent))
        assert seen == list(settings.upstreams.values())


class TestAnotherUser:
    """A mirror that root starts with twistd's ``--uid``."""

    def started(self, path: Path, *arguments: str) -> None:
        """Up to where the rights are given up."""
        (path / "htpasswd").touch()
        (path / "settings").write_text(
            f'[access]\nhtpasswd = "{path}/htpasswd"\n'
            f'keys = "{path}/state/keys"\naudit = "{path}/state/audit"\n'
        )
        twistd = ServerOptions()
        own = ("--workers=2", "--listen=tcp:0", f"--cache={path}/cache", "--operations=none")
        twistd.parseOptions([*arguments, "dockmirror", f"--config={path}/settings", *own])
        makeService(twistd.subOptions)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    @pytest.mark.parametrize("arguments", [("--uid=65534", "--gid=65533"), ("--uid=65534",)])
    def test_what_it_makes(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        """Is that user's, so that it can be used when the rights are given up."""
        group = 65533 if len(arguments) > 1 else getpwuid(65534).pw_gid
        self.started(tmp_path, *arguments)
        made = [
            path for each in ("cache", "state") for path in (tmp_path / each, *(tmp_path / each).rglob("*"))
        ]
        assert {path.name for path in made} >= {"cache", "state", "keys", "audit", "blobs"}
        assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65534, group)}

    def test_without(self, tmp_path: Path) -> None:
        """It is the user's who starts it."""
        (tmp_path / "state").mkdir()
        self.started(tmp_path)
        assert {path.stat().st_uid for path in (tmp_path / "cache").rglob("*")} == {os.geteuid()}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
    def test_a_place_that_cannot_be(self, tmp_path: Path) -> None:
        """Ends it in a line that names the key."""
        (tmp_path / "state").touch()
        with pytest.raises(SystemExit, match=r"^dockmirror: access.keys: .*state") as raised:
            self.started(tmp_path, "--uid=65534")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"url": "https://a.example"}, ["a.example"]),
        ({"url": "http://a.example:5000"}, ["a.example_5000", "a.example:5000"]),
        (
            {"url": "http://x:1", "registry": "docker.io", "aliases": ["b.io", "docker.io"]},
            ["docker.io", "b.io"],
        ),
    ],
)
def test_what_a_registry_is_called(settings: dict[str, Any], names: list[str]) -> None:
    """As the table or the operator says, or as its address does; a port is no part of a repository's name."""
    assert registry_names(UpstreamSettings(**settings)) == names


class TestDraining:
    """The end."""

    PATH = f"/v2/a/blobs/{digest(LAYER)}"

    def begun(self) -> tuple[House, Any, list[int]]:
        """A mirror that is told to stop while a layer is on its way."""
        internet = Internet()
        internet.reply("registry.k8s.io", self.PATH, Reply(200, LAYER).cut(100_000, end="stalled"))
        house = House(internet)
        client = house.connect().ask("GET", "k8s.mirror.example", self.PATH)
        draining = DrainConnections(house.site, 300)
        draining.startService()
        stopped: list[int] = []
        draining.stopService().addCallback(stopped.append)
        return house, client, stopped

    def test_a_running_transfer_finishes(self) -> None:
        """And then the service has stopped."""
        house, client, stopped = self.begun()
        assert stopped == []
        house.world.go_on(LAYER[100_000:])
        assert client.answer.body == LAYER
        client.leave()
        assert stopped == [0]

    def test_but_not_for_ever(self) -> None:
        """After the grace it is cut off."""
        house, client, stopped = self.begun()
        house.pass_time(50, 249)
        assert not client.aborted
        house.pass_time(1)
        client.leave()
        assert client.aborted
        assert stopped == [1]
