"""The mirror as a service: its options, its parts, and reloading."""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from pwd import getpwuid
from typing import Any, cast

import pytest
from twisted.application.service import IService, MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.scripts._twistd_unix import ServerOptions
from zope.interface import implementer

from dockmirror.app.cache_stack import StackContext
from dockmirror.app.listeners import Listener
from dockmirror.app.message_log import StartMessage
from dockmirror.app.process import OrderedMultiService, ServingProcess
from dockmirror.app.service import START_ONLY, Options, SettingsReload, make_mirror, makeService
from dockmirror.app.stack import build_stack
from dockmirror.app.telemetry import Telemetry
from dockmirror.config.load import load
from dockmirror.config.notation import Amount
from dockmirror.config.settings import ConfigurationError, Settings, UpstreamSettings
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import NameUnknown
from dockmirror.oci.request import Blob, RegistryRequest, Repository
from dockmirror.system.reactor_services import ClockStepGuard, GracefulShutdown, SystemdNotice
from dockmirror.web.shared_tables import SharedTables
from dockmirror.workers.worker_pool import WorkerPool
from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet
from tests.stacks import Outcome, logged, now
from tests.test_docs import text


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the environment of the user who runs the tests, and store nothing outside of the tests."""
    for name in os.environ:
        if name.startswith("DOCKMIRROR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKMIRROR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKMIRROR_HISTORY", str(tmp_path / "history"))


def parse_options(*arguments: str) -> Settings:
    """Return the settings of a command line."""
    options = Options()
    options.parseOptions(arguments)
    return options.read()


class TestOptions:
    def test_options_win_over_file_and_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """They keep their order; without options there are defaults."""
        assert parse_options() == load({}, os.environ)
        monkeypatch.setenv("DOCKMIRROR_GRACE", "7")
        monkeypatch.setenv("DOCKMIRROR_TAG_TTL", "8")
        file = tmp_path / "dockmirror.toml"
        file.write_text('domain = "file.example"\nnames = ["mirror.lan"]\n')
        settings = parse_options(
            "--config", str(file), "--domain", "m.example", "--hosts", "{name}-{domain}", "--listen", "tcp:1",
            "--listen", "tcp:2", "--upstream", "a=http://a:1", "--upstream", "b=https://b", "--default", "a",
            "--networks", "10.0.0.0/8", "--networks", "public", "--grace", "5", "--log-format", "json",
        )  # fmt: skip
        assert settings.host("a") == "a-m.example"
        assert (settings.names, settings.listen) == (("mirror.lan",), ("tcp:1", "tcp:2"))
        assert [settings.upstreams[name].url for name in "ab"] == ["http://a:1", "https://b"]
        assert (settings.default, settings.networks) == ("a", ("10.0.0.0/8", "public"))
        assert (settings.grace, settings.tag_ttl, settings.log_format) == (5, 8, "json")

    @pytest.mark.parametrize(
        ("arguments", "key"),
        [
            (["--upstream", "a=ftp://a"], "upstreams.a.url"),
            (["--log-format", "xml"], "log_format"),
            (["--config", "/nowhere.toml"], "/nowhere.toml"),
        ],
    )
    def test_an_invalid_option_is_refused_by_its_name(self, arguments: list[str], key: str) -> None:
        with pytest.raises(SystemExit) as raised:
            parse_options(*arguments)
        assert key in str(raised.value)
        assert "\n" not in str(raised.value)


def make(**settings: Any) -> MultiService:
    """Make a mirror with these settings."""
    return make_mirror(partial(load, settings, os.environ), {})


class TestMakeMirror:
    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_the_parts_start_and_stop_in_order(self, workers: str) -> None:
        """There is one listener for each endpoint, and one by default."""
        for arguments, listeners in ((("--listen", "tcp:0", "--listen", "tcp:0"), 2), ((), 1)):
            options = Options()
            options.parseOptions(["--workers", workers, *arguments])
            service = makeService(options)
            assert IService.providedBy(service)
            kinds = [type(part) for part in cast(MultiService, service)]
            serving = [OrderedMultiService] if workers == "1" else [ClockStepGuard, WorkerPool]
            last = [SettingsReload, GracefulShutdown, StartMessage, SystemdNotice]
            assert kinds == [Listener, *serving, *[Listener] * listeners, *last]
        for endpoint, name in (("none", "listen.0"), ("tcp:0", "operations")):
            parts = make(operations=endpoint, listen=["tcp:0"], workers=workers)
            assert next(part.name for part in parts if part.name) == name

    @pytest.mark.parametrize(("cores", "expected"), [(1, OrderedMultiService), (2, 2), (64, 4)])
    def test_there_are_as_many_workers_as_cores_up_to_four(
        self, monkeypatch: pytest.MonkeyPatch, cores: int, expected: object
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        parts = list(make(operations="none"))
        counts: list[object] = [part.count for part in parts if isinstance(part, WorkerPool)]
        assert (counts or [type(parts[0])]) == [expected]

    @pytest.mark.parametrize(
        "endpoint", ["nonsense:1", "tcp:x", "tcp:1:no=such", "ssl:1:privateKey=/nowhere"]
    )
    def test_an_invalid_endpoint_is_refused_in_one_line_that_names_the_setting(self, endpoint: str) -> None:
        with pytest.raises(ConfigurationError, match="listen: expected a server endpoint"):
            make(listen=[endpoint])
        with pytest.raises(ConfigurationError, match="operations: expected a server endpoint, not '"):
            make(operations=endpoint)
        options = Options()
        options.parseOptions(["--listen", endpoint])
        with pytest.raises(SystemExit, match=r"^dockmirror: listen: ") as raised:
            makeService(options)
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (CannotListenError("127.0.0.1", 94, OSError(98, "Address in use")), r".*127\.0\.0\.1:94.*in use"),
            (
                CannotListenError("", 80, OSError(13, "Permission denied")),
                r".*:80.*denied; a port below 1024 ",
            ),
            (CannotListenError(None, "/run/m", "Cannot acquire lock"), ".*; stop the program that uses it"),
            (OverflowError("bind(): port must be 0-65535."), "bind.*: port must be 0-65535"),
            (FileNotFoundError(2, "No such file", "27533", None, b"/no/x.lock"), "/no/x.lock: No such file$"),
            (PermissionError(13, "Permission denied", "/run/x"), "/run/x: Permission denied$"),
        ],
    )
    @pytest.mark.parametrize("key", ["listen.0", "operations"])
    def test_an_address_in_use_is_refused_by_its_setting(
        self, key: str, error: Exception, reason: str
    ) -> None:
        class FailingListener(Service):
            def privilegedStartService(self) -> None:
                raise error

        services, listener = OrderedMultiService(), FailingListener()
        listener.setName(key)
        listener.setServiceParent(services)
        with pytest.raises(SystemExit, match=f"^dockmirror: {key}: {reason}") as raised:
            services.privilegedStartService()
        assert "\n" not in str(raised.value)

    def test_an_invalid_ca_file_is_refused_at_start(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("no certificate")
        upstream = {"url": "https://lan", "ca_file": str(tmp_path / "ca.pem")}
        with pytest.raises(ConfigurationError, match=r"^upstreams\.lan\.ca_file: expected PEM certificates"):
            make(upstreams={"lan": upstream})

    def test_a_malformed_lock_file_is_refused_at_start_and_changes_nothing_at_a_reload(
        self, tmp_path: Path
    ) -> None:
        """The last valid state of the file stays in force with the previous settings."""
        lock = tmp_path / "dockmirror.lock"
        lock.touch()
        settings = {"workers": "1", "policy": [{"images": "**", "lock": str(lock)}]}
        mirror = make(**settings)
        lock.write_text("nonsense")
        with pytest.raises(ConfigurationError, match=rf"^policy\.0\.lock: {lock}: line 1: expected an image"):
            make(**settings)
        (reloading,) = (part for part in mirror if isinstance(part, SettingsReload))
        with logged() as texts:
            now(reloading.reload())
        assert f"keeping the previous ones: policy.0.lock: {lock}: line 1: expected" in texts[0]

    def test_settings_that_cannot_be_put_into_force_reach_no_worker(self, tmp_path: Path) -> None:
        """The first process puts them into force before, and reads the files for all workers."""
        file = tmp_path / "password"
        file.write_text("s3cret")
        upstreams = {"docker": {"username": "alice", "password_file": str(file)}}
        mirror = make(workers="2", networks=["private"], upstreams=upstreams, listen=["tcp:0"])
        file.write_text("")
        (reloading,) = (part for part in mirror if isinstance(part, SettingsReload))
        with logged() as texts:
            now(reloading.reload())
        assert "keeping the previous ones: upstreams.docker.username: expected a password" in texts[0]

    def test_each_upstream_has_connections_of_its_own(self) -> None:
        """Addresses that one upstream may reach may be forbidden to another."""
        agents: list[UpstreamSettings] = []

        def agent_for(upstream: UpstreamSettings, *_: object) -> Any:
            agents.append(upstream)
            return object()

        settings, telemetry = load({}, {}), Telemetry.create(SharedTables.create(), Clock())
        context = StackContext(Clock(), agent_for, telemetry)
        for name in settings.upstreams:
            build_stack(name, settings, context)
        assert agents == list(settings.upstreams.values())


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


class TestSwitchToAnotherUser:
    """A mirror that root starts with twistd's ``--uid``."""

    def start(self, path: Path, *arguments: str) -> None:
        """Make the service, up to where twistd gives up root's rights."""
        (path / "htpasswd").touch()
        (path / "settings").write_text(
            f'[access]\nhtpasswd = "{path}/htpasswd"\n'
            f'keys = "{path}/state/keys"\naudit = "{path}/state/audit"\n'
        )
        twistd = ServerOptions()
        own = ("--workers=2", "--listen=tcp:0", f"--cache={path}/cache", "--operations=none")
        twistd.parseOptions([*arguments, "dockmirror", f"--config={path}/settings", *own])
        makeService(twistd.subOptions)

    @as_root
    @pytest.mark.parametrize("arguments", [("--uid=65534", "--gid=65533"), ("--uid=65534",)])
    def test_created_files_belong_to_that_user(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        group = 65533 if len(arguments) > 1 else getpwuid(65534).pw_gid
        self.start(tmp_path, *arguments)
        created = [
            path for each in ("cache", "state") for path in (tmp_path / each, *(tmp_path / each).rglob("*"))
        ]
        assert {path.name for path in created} >= {"cache", "state", "keys", "audit", "blobs"}
        assert {(path.stat().st_uid, path.stat().st_gid) for path in created} == {(65534, group)}

    def test_without_uid_files_belong_to_the_user_who_starts_it(self, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir()
        self.start(tmp_path)
        assert {path.stat().st_uid for path in (tmp_path / "cache").rglob("*")} == {os.geteuid()}

    @as_root
    def test_a_directory_that_cannot_be_created_is_refused_by_its_key(self, tmp_path: Path) -> None:
        (tmp_path / "state").touch()
        with pytest.raises(SystemExit, match=r"^dockmirror: access.keys: .*state") as raised:
            self.start(tmp_path, "--uid=65534")
        assert "\n" not in str(raised.value)


OWN = "mirror.example"
PATH = f"/v2/a/blobs/{digest(LAYER)}"


@implementer(IReactorFromThreads)
class RecordingReactor:
    """Records the calls that are to be made in the reactor's thread."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.calls.append(callable)

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        raise NotImplementedError

    def suggestThreadPoolSize(self, size: int) -> None: ...


def record_reads(settings: Settings) -> tuple[Settings, set[str]]:
    """Return the same settings, and the names of those that have been read."""
    read: set[str] = set()

    class Recorded(Settings):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    same = Recorded.model_validate_json(settings.as_json())
    read.clear()
    return same, read


def reload(house: House, **settings: Any) -> None:
    """Reload a mirror with these settings."""
    before, reactor = load({"domain": OWN}, {}), RecordingReactor()
    now(
        SettingsReload(
            before, lambda: load(settings, {}), as_coroutine(house.serving.apply), reactor
        ).reload()
    )


def as_coroutine(apply: Callable[[Settings], None]) -> Callable[[Settings], Coroutine[Any, Any, None]]:
    async def apply_later(settings: Settings) -> None:
        apply(settings)

    return apply_later


def test_new_settings_apply_to_new_requests_and_running_ones_continue() -> None:
    internet = Internet()
    internet.reply("registry.k8s.io", PATH, Reply(200, LAYER))
    house = House(internet)
    running = house.connect().ask("GET", "k8s.mirror.example", PATH)
    keep_alive = house.connect().ask("GET", "k8s.mirror.example", "/v2/")
    with logged() as texts:
        reload(house, domain="other.example", log_format="json")
    assert "settings reloaded; changed: domain, log_format" in texts[0]
    assert running.answer.body == LAYER
    assert keep_alive.ask("GET", "k8s.mirror.example", "/v2/").answer.status == 404
    assert house.get("k8s.other.example", "/v2/").status == 200
    assert house.lines[-1].startswith("{")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": ["lan"]}, "networks.0: expected a network"),
        ({"config": "/nowhere.toml"}, "/nowhere.toml: cannot be read"),
        ({"access": {"audit": "/nowhere/audit"}}, "access.audit: cannot be written"),
        ({"access": {"htpasswd": "/etc/hosts"}}, "access.htpasswd: line 1"),
        ({"upstreams": {"docker": {"username": "alice"}}, "networks": ["private"]}, "expected a password"),
    ],
)
def test_invalid_settings_change_nothing_and_are_logged(settings: dict[str, Any], message: str) -> None:
    house = House(Internet())
    with logged() as texts:
        reload(house, domain="other.example", **settings)
    (text,) = texts
    assert "cannot reload the settings, keeping the previous ones" in text
    assert message in text
    assert house.get("k8s.mirror.example", "/v2/").status == 200
    assert house.get("k8s.other.example", "/v2/").status == 404


def test_a_reload_logs_the_keys_that_changed_and_never_their_values() -> None:
    """A new or a removed upstream is one key; files are read again though their paths are the same."""
    old = {"url": "https://old.lan", "proxy": "http://alice:s3cret@proxy"}
    before = load({"upstreams": {"lan": old, "gone": {"url": "https://gone.lan"}}}, {})
    upstreams = {
        "lan": {**old, "proxy": "http://alice:changed@proxy", "tag_ttl": 5},
        "new": {"url": "https://new.lan"},
    }
    policy = {"images": "**", "min_age": "7d"}
    after = load({"upstreams": upstreams, "access": {"requests": 5}, "policy": [policy]}, {})
    service = SettingsReload(before, lambda: after, as_coroutine(lambda _: None), RecordingReactor())
    with logged() as texts:
        now(service.reload())
        now(service.reload())
    changed = {
        "access.requests", "upstreams.lan.proxy", "upstreams.lan.tag_ttl", "upstreams.new", "upstreams.gone",
        "policy",
    }  # fmt: skip
    first, second = (re.findall(r"settings reloaded; changed: (.*?) \{", text)[0] for text in texts)
    assert set(first.split(", ")) == changed
    assert second == "none"
    assert not any(secret in text for text in texts for secret in ("s3cret", "alice"))


def test_settings_that_need_a_restart_are_logged_at_each_reload() -> None:
    applied: list[Settings] = []
    before, new = load({"domain": OWN, "grace": 5}, {}), {"domain": "other.example", "grace": 6}
    service = SettingsReload(
        before,
        lambda: load({**new, "listen": ["tcp:1"]}, {}),
        as_coroutine(applied.append),
        RecordingReactor(),
    )
    for _ in range(2):
        with logged() as texts:
            now(service.reload())
        assert "; restart the mirror to apply listen, grace" in texts[0]
    assert [(each.domain, each.grace, each.listen) for each in applied] == [("other.example", 5, ())] * 2


@pytest.mark.parametrize(
    ("before", "new", "size"), [("0", "1GB", 0), ("1GB", "0", 10**9), ("1GB", "2GB", 2 * 10**9)]
)
def test_a_reload_changes_the_cache_size_but_adds_no_cache(before: str, new: str, size: int) -> None:
    applied: list[Settings] = []
    old, loaded = (load({"cache_size": each, "cache": "/cache"}, {}) for each in (before, new))
    service = SettingsReload(old, lambda: loaded, as_coroutine(applied.append), RecordingReactor())
    with logged() as texts:
        now(service.reload())
    assert applied[-1].cache_size == Amount(size)
    assert ("restart the mirror to apply cache_size" in texts[0]) == (size != 2 * 10**9)


def test_settings_that_a_reload_does_not_read_are_listed_as_start_only(tmp_path: Path) -> None:
    """run.md has the same list."""
    before = load({"acme": "a@b.example", "certificates": str(tmp_path), "cache": str(tmp_path)}, {})
    process = ServingProcess(before, {}, reactor, SharedTables.create())
    new, read = record_reads(before)
    now(process.apply(new))
    # these are read when they are needed, from the settings in force
    read |= {"tag_ttl", "operations_names", "sync", "gate"}
    assert set(Settings.model_fields) - read <= set(START_ONLY)
    (listed,) = re.findall(r"read at start only: (.*?); and `cache_size`", text("docs/how-to/run.md"))
    assert re.findall(r"`(\w+)`", listed) == list(START_ONLY)


@pytest.fixture
def _sighup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_sighup")
def test_sighup_reloads_in_the_reactors_thread_while_the_service_runs() -> None:
    """It does not end a mirror that stops, and still finishes transfers."""
    reactor, applied = RecordingReactor(), list[Settings]()
    service = SettingsReload(load({}, {}), lambda: load({}, {}), as_coroutine(applied.append), reactor)
    service.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    assert applied == []
    for call in reactor.calls:
        call()
    assert len(applied) == 1
    service.stopService()
    os.kill(os.getpid(), signal.SIGHUP)
    assert len(reactor.calls) == 1


@pytest.mark.usefixtures("_sighup")
def test_reloads_run_one_after_the_other() -> None:
    """Workers may need long for one, and would put the settings of two into force in any order."""
    reactor, applied = RecordingReactor(), list[Deferred[None]]()

    async def apply(_: Settings) -> None:
        applied.append(Deferred())
        await applied[-1]

    service = SettingsReload(load({}, {}), lambda: load({}, {}), apply, reactor)
    service.startService()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)
    for call in reactor.calls:
        call()
    assert len(applied) == 1
    with logged():
        applied[0].errback(ConfigurationError("no"))
    assert len(applied) == 2


def test_the_audit_log_continues_in_a_new_file_after_rotation(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    house = House(Internet(), access={"audit": str(audit)})
    house.get(OWN, "/v2/")
    audit.rename(tmp_path / "old")
    house.get(OWN, "/v2/library/busybox/manifests/latest")
    reload(house, domain=OWN, access={"audit": str(audit)})
    house.get(OWN, "/")
    assert len((tmp_path / "old").read_text().splitlines()) == 2
    assert len(audit.read_text().splitlines()) == 1


def test_the_mirrors_own_pulls_use_the_settings_in_force() -> None:
    internet = Internet()
    internet.reply("lan.example", PATH, Reply(200, LAYER))
    house = House(internet)
    request = RegistryRequest(Blob(Repository("lan.example/a"), Digest.parse(digest(LAYER))))

    def fetch() -> Any:
        work = Outcome(house.serving.registry.fetch(request))
        internet.agent.flush()
        return work.get()

    with pytest.raises(NameUnknown):
        fetch()
    reload(house, upstreams={"lan": {"url": "https://lan.example"}})
    fetch().body.discard()
    with logged():
        reload(house, access={"audit": "/nowhere/log"})
    fetch().body.discard()
