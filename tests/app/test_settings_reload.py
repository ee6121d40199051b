"""New settings while the mirror runs."""

# mypy: allow-untyped-calls

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from dockmirror.app.process import ServingProcess
from dockmirror.app.settings_reload import AT_START, SettingsReload
from dockmirror.config.load import load
from dockmirror.config.settings import Settings
from dockmirror.config.sizes import Amount
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import NameUnknown
from dockmirror.oci.reference import Repository
from dockmirror.oci.request import Blob, RegistryRequest
from dockmirror.web.shared_tables import SharedTables
from tests.fake_registry import digest
from tests.fakes import Reply
from tests.house import House
from tests.internet import LAYER, Internet
from tests.stacks import Outcome, logged, now
from tests.test_docs import text

OWN = "mirror.example"
PATH = f"/v2/a/blobs/{digest(LAYER)}"


@implementer(IReactorFromThreads)
class Reactor:
    """Keeps what is to be called from a thread."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See ``IReactorFromThreads``."""
        self.calls.append(callable)

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """See ``IReactorInThreads``."""
        raise NotImplementedError

    def suggestThreadPoolSize(self, size: int) -> None:
        """See ``IReactorThreads``."""


def recorded(settings: Settings) -> tuple[Settings, set[str]]:
    """The same settings, and the names of those that have been read."""
    read: set[str] = set()

    class Recorded(Settings):
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    same = Recorded.model_validate_json(settings.as_json())
    read.clear()
    return same, read


def reloading(house: House, **settings: Any) -> SettingsReload:
    """What puts these settings into force."""
    began, reactor = load({"domain": OWN}, {}), Reactor()
    return SettingsReload(began, lambda: load(settings, {}), noted(house.serving.serve), reactor)


def noted(put: Callable[[Settings], None]) -> Callable[[Settings], Coroutine[Any, Any, None]]:
    """Puts settings into force at once."""

    async def serve(settings: Settings) -> None:
        put(settings)

    return serve


def test_new_settings() -> None:
    """Are in force for what comes, and what runs goes on."""
    internet = Internet()
    internet.reply("registry.k8s.io", PATH, Reply(200, LAYER))
    house = House(internet)
    running = house.connect().ask("GET", "k8s.mirror.example", PATH)
    keeping = house.connect().ask("GET", "k8s.mirror.example", "/v2/")
    with logged() as texts:
        now(reloading(house, domain="other.example", log_format="json").reload())
    assert "new settings are in force" in texts[0]
    assert running.answer.body == LAYER
    assert keeping.ask("GET", "k8s.mirror.example", "/v2/").answer.status == 404
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
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    """Change nothing, and the log says what is wrong."""
    house = House(Internet())
    with logged() as texts:
        now(reloading(house, domain="other.example", **settings).reload())
    (text,) = texts
    assert "the settings are as they were" in text
    assert message in text
    assert house.get("k8s.mirror.example", "/v2/").status == 200
    assert house.get("k8s.other.example", "/v2/").status == 404


def test_what_is_so_from_the_start() -> None:
    """Stays, and the log says so, as often as it is tried."""
    served: list[Settings] = []
    began = load({"domain": OWN, "grace": 5}, {})
    new = {"domain": "other.example", "grace": 6, "listen": ["tcp:1"]}
    reload = SettingsReload(began, lambda: load(new, {}), noted(served.append), Reactor()).reload
    for _ in range(2):
        with logged() as texts:
            now(reload())
        assert "at the next start also: listen, grace" in texts[0]
    assert [(each.domain, each.grace, each.listen) for each in served] == [("other.example", 5, ())] * 2


def test_a_cache_that_comes_or_goes() -> None:
    """Whether there is a cache is decided at start; its size is not, and the log says which."""
    served: list[Settings] = []
    for began, new, size in (("0", "1GB", 0), ("1GB", "0", 10**9), ("1GB", "2GB", 2 * 10**9)):
        loaded = [load({"cache_size": each, "cache": "/cache"}, {}) for each in (began, new)]
        with logged() as texts:
            now(
                SettingsReload(
                    loaded[0], partial(loaded.__getitem__, 1), noted(served.append), Reactor()
                ).reload()
            )
        assert served[-1].cache_size == Amount(size)
        assert ("at the next start also: cache_size" in texts[0]) == (size != 2 * 10**9)


def test_the_list_of_what_only_a_start_reads(tmp_path: Path) -> None:
    """Has every setting that is not read when settings are put into force; operating.md has the same list."""
    began = load({"acme": "a@b.example", "certificates": str(tmp_path), "cache": str(tmp_path)}, {})
    process = ServingProcess(began, {}, reactor, SharedTables.alone())
    new, read = recorded(began)
    now(process.serve(new))
    read |= {"tag_ttl", "operations_names"}  # from the settings in force, with each request that needs them
    assert set(Settings.model_fields) - read <= set(AT_START)
    (listed,) = re.findall(r"read at start only: (.*?); and `cache_size`", text("docs/operating.md"))
    assert re.findall(r"`(\w+)`", listed) == list(AT_START)


def test_the_signal() -> None:
    """Has it done in the reactor's own time, once the service runs and until it stops."""
    reactor, served, before = Reactor(), list[Settings](), signal.getsignal(signal.SIGHUP)
    service = SettingsReload(load({}, {}), lambda: load({}, {}), noted(served.append), reactor)
    service.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    assert served == []
    for call in reactor.calls:
        call()
    assert len(served) == 1
    service.stopService()
    assert signal.getsignal(signal.SIGHUP) == before


def test_an_audit_log(tmp_path: Path) -> None:
    """Goes on in a new file after the old one was moved away."""
    audit = tmp_path / "audit"
    house = House(Internet(), access={"audit": str(audit)})
    house.get(OWN, "/v2/")
    audit.rename(tmp_path / "old")
    house.get(OWN, "/v2/library/busybox/manifests/latest")
    now(reloading(house, domain=OWN, access={"audit": str(audit)}).reload())
    house.get(OWN, "/")
    assert len((tmp_path / "old").read_text().splitlines()) == 2
    assert len(audit.read_text().splitlines()) == 1


def test_what_the_mirror_asks_itself() -> None:
    """Is a registry of the settings in force; wrong ones leave it as it is."""
    internet = Internet()
    internet.reply("lan.example", PATH, Reply(200, LAYER))
    house = House(internet)
    asked = RegistryRequest(Blob(Repository("lan.example/a"), Digest.parse(digest(LAYER))))

    def fetched() -> Any:
        work = Outcome(house.serving.registry.fetch(asked))
        internet.agent.flush()
        return work.get()

    with pytest.raises(NameUnknown):
        fetched()
    now(reloading(house, upstreams={"lan": {"url": "https://lan.example"}}).reload())
    fetched().body.discard()
    with logged():
        now(reloading(house, access={"audit": "/nowhere/log"}).reload())
    fetched().body.discard()
