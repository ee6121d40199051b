"""Tests of the diagnosis of an upstream."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, SSLError, TimeoutError
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent

from dockmirror.app.accounts import REST, Accounts
from dockmirror.app.naming import parse_image_name
from dockmirror.cli.diagnostics import DiagnosedAddress, Diagnosis, diagnose, diagnose_peer
from dockmirror.config.load import load
from dockmirror.config.settings import UpstreamSettings
from dockmirror.interfaces import IAccount
from dockmirror.middleware.token_registry import FixedAccount
from dockmirror.oci.token import Credentials, Login
from dockmirror.upstream.bounded_endpoint import HandshakeTimedOut
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.proxy import Proxy, ProxyError, ProxySettings
from tests.fake_registry import Passwords, Registry, error
from tests.fakes import DEAD, SILENT, Reply, World
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet

from ..stacks import Outcome

ADDRESS = "192.0.2.7"
PREVIEW = "/v2/ratelimitpreview/test/manifests/latest"
TOLD = (
    ("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
    ("Docker-Content-Digest", f"sha256:{'0' * 64}"),
    ("Content-Length", "2"),
    ("RateLimit-Limit", "100;w=21600"),
)
PROXY = Proxy.parse("http://name:s3cret@proxy.example:3128")


def examined(
    internet: Internet,
    name: str = "docker",
    account: IAccount | None = None,
    proxies: ProxySettings = ProxySettings(),  # noqa: B008
    resolved: bool = True,
    images: Sequence[str] = (),
    accounts: Accounts = MappingProxyType({}),
    **settings: Any,
) -> Diagnosis:
    """Diagnose one upstream."""
    upstream = load({"upstreams": {name: settings}} if settings else {}, {}).upstreams[name]

    def agent_for(one: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        if resolved:
            reached(one.url.partition("://")[2], ADDRESS)
        return internet.agent

    clock = Clock()
    accounts = {**({REST: account} if account else {}), **accounts}
    wanted = [parse_image_name(image, load({}, {})) for image in images]
    work = Outcome(diagnose(DiagnosedAddress(name, upstream, accounts, wanted), agent_for, proxies, clock))
    internet.agent.flush()
    clock.advance(upstream.timeout)
    found: Diagnosis = work.get()
    return found


def steps(found: Diagnosis) -> list[tuple[str, bool]]:
    """Return each step's name and outcome."""
    return [(step.name, step.ok) for step in found.steps]


def alice(password: str = PASSWORD) -> IAccount:
    """Return Alice's account."""
    return FixedAccount(Login(Credentials.basic(USER, password)))


@pytest.fixture
def internet() -> Internet:
    """Return an internet where Docker Hub reports 76 remaining pulls."""
    internet = Internet()
    internet.reply(HUB, PREVIEW, Reply(200, b"", (*TOLD, ("RateLimit-Remaining", "76;w=21600"))))
    return internet


def test_a_working_upstream_passes_all_steps(internet: Internet) -> None:
    """The diagnosis uses no pull: it sends one HEAD for the manifest that Docker Hub provides for this."""
    found = examined(internet)
    assert found.ok
    assert steps(found) == [
        (name, True) for name in ("name", "connection", "TLS", "/v2/", "token", "limit")
    ]  # fmt: skip
    assert found.addresses == [ADDRESS]
    results = [step.result for step in found.steps]
    assert results[0] == ADDRESS
    assert results[3] == f"it requires a token from https://{AUTH}/token"
    assert results[5] == "76 of 100 pulls remain"
    requests = [(seen.method, seen.path) for seen in internet.asked(HUB)]
    assert set(requests) == {("GET", "/v2/"), ("HEAD", PREVIEW)}


@pytest.mark.parametrize(
    ("image", "ok", "result"),
    [
        ("registry.k8s.io/team/image:1", True, "registry.k8s.io/team/image:1 can be pulled"),
        ("registry.k8s.io/team/image:nope", False, "registry.k8s.io/team/image:nope cannot be pulled: "),
    ],
)
def test_an_image_is_looked_for(internet: Internet, image: str, ok: bool, result: str) -> None:
    found = examined(internet, "k8s", images=[image])
    assert (found.steps[-1].name, found.steps[-1].ok) == ("image", ok)
    assert found.steps[-1].result.startswith(result)


@pytest.mark.parametrize("name", ["quay", "k8s", "mcr", "ghcr"])
def test_only_docker_hub_has_a_limit_step(internet: Internet, name: str) -> None:
    """Other registries report no limit, and some need no authentication."""
    found = examined(internet, name)
    assert found.ok
    assert [step.name for step in found.steps] == ["name", "connection", "TLS", "/v2/", "token"]


@pytest.mark.parametrize(
    ("failure", "failed"),
    [
        (DNSLookupError("no such host"), [("name", False)]),
        (AddressRefused("it is loopback"), [("name", True), ("connection", False)]),
        (ConnectionRefusedError(), [("name", True), ("connection", False)]),
        (ProxyError(PROXY, "says 403", 403), [("name", True), ("connection", False)]),
        (TimeoutError(string="late"), [("name", True), ("connection", False)]),
        (SSLError(string="not trusted"), [("name", True), ("connection", True), ("TLS", False)]),
        (HandshakeTimedOut(string="late"), [("name", True), ("connection", True), ("TLS", False)]),
    ],
)
def test_the_failed_step_is_the_last_and_has_the_reason(
    internet: Internet, failure: Exception, failed: list[tuple[str, bool]]
) -> None:
    internet.agent.failing[HUB] = failure
    found = examined(internet)
    assert steps(found) == failed
    assert not found.ok
    assert str(failure) in found.steps[-1].result or isinstance(failure, ConnectionRefusedError)


PLAIN = SSLError(string="TLS handshake with hub: wrong version number")


@pytest.mark.parametrize(
    ("failure", "proxied", "kind"),
    [
        (ConnectionRefusedError(), False, "refused"),
        (ConnectionRefusedError(), True, ""),
        (TimeoutError(string="late"), False, ""),
        (AddressRefused("it is loopback"), False, "not allowed"),
        (PLAIN, False, "not spoken"),
        (PLAIN, True, "not spoken"),
        (SSLError(string="certificate verify failed"), False, ""),
    ],
)
def test_a_failure_with_advice_of_its_own_has_a_kind(
    internet: Internet, failure: Exception, proxied: bool, kind: str
) -> None:
    """A connection that was refused on the way through a proxy says nothing about the registry."""
    internet.agent.failing[HUB] = failure
    proxies = ProxySettings(PROXY, PROXY) if proxied else ProxySettings()
    assert examined(internet, proxies=proxies).steps[-1].kind == kind


def test_a_timeout_before_an_address_is_known_fails_the_name(internet: Internet) -> None:
    """With a proxy the name is the proxy's to resolve."""
    internet.agent.failing[HUB] = TimeoutError(string="connecting took more than 10 s")
    assert steps(examined(internet, resolved=False)) == [("name", False)]
    through = examined(internet, proxies=ProxySettings(PROXY, PROXY), resolved=False)
    assert steps(through) == [("name", True), ("connection", False)]
    assert through.steps[0].result == "resolved by the proxy"


def test_a_server_that_is_no_registry_fails(internet: Internet) -> None:
    internet.reply(HUB, "/v2/", Reply(200, b"<html>", (("Content-Type", "text/html"),)))
    assert steps(examined(internet))[-1] == ("/v2/", False)
    for reply in (Reply(503), DEAD, SILENT):
        internet.reply(HUB, "/v2/", reply)
        assert steps(examined(internet))[-1] == ("/v2/", False)


def test_the_mirrors_account_gets_the_token(internet: Internet) -> None:
    assert examined(internet, account=alice()).steps[4].result == "issued to the mirror's own account"
    found = examined(internet, account=alice("wr0ng"))
    assert steps(found)[-1] == ("token", False)
    assert "wr0ng" not in str(found)


def test_a_registry_with_basic_authentication(internet: Internet) -> None:
    """The password is accepted or refused; without an account only clients with credentials can pull."""
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    mine: dict[str, Any] = {"url": "https://basic.example"}
    assert examined(internet, "mine", alice(), **mine).ok
    assert steps(examined(internet, "mine", alice("wr0ng"), **mine))[-1] == ("token", False)
    anonymous = examined(internet, "mine", **mine)
    assert anonymous.ok
    assert "only clients with credentials can pull" in anonymous.steps[-1].result


def test_a_token_service_that_is_down_fails(internet: Internet) -> None:
    """A service that refuses an anonymous token without a repository works."""
    internet.reply("quay.io", "/v2/auth", Reply(502))
    assert steps(examined(internet, "quay"))[-1] == ("token", False)
    internet.reply("quay.io", "/v2/auth", error(401, "UNAUTHORIZED", "who are you?"))
    found = examined(internet, "quay")
    assert found.ok
    assert "who are you?" in found.steps[-1].result


@pytest.mark.parametrize(
    ("reply", "well"),
    [
        (Reply(200, b"", (*TOLD, ("RateLimit-Remaining", "0;w=21600"))), False),
        (Reply(200, b"", TOLD), True),
        (error(429, "TOOMANYREQUESTS"), False),
        (error(404, "MANIFEST_UNKNOWN"), True),
    ],
)
def test_the_limit_fails_when_no_pulls_remain(internet: Internet, reply: Reply, well: bool) -> None:
    internet.reply(HUB, PREVIEW, reply)
    assert steps(examined(internet))[-1] == ("limit", well)


def test_the_proxy_is_named_without_its_password(internet: Internet) -> None:
    found = examined(internet, proxies=ProxySettings(PROXY, PROXY))
    assert found.steps[1].result == "through the proxy http://proxy.example:3128"
    assert "s3cret" not in str(found)


def test_each_account_is_tried(internet: Internet) -> None:
    """A wrong one does not keep the others from it; with Basic there is nothing to try without an account."""
    accounts = {"wrong": alice("wr0ng"), "right": alice()}
    found = examined(internet, accounts=accounts)
    assert [(step.ok, step.result.partition(":")[0]) for step in found.steps if step.name == "token"] == [
        (True, "issued anonymously"),
        (False, "wrong"),
        (True, "right"),
    ]
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    mine: dict[str, Any] = {"url": "https://basic.example"}
    basic = examined(internet, "mine", accounts={"right": alice()}, **mine)
    assert [step.result.partition(":")[0] for step in basic.steps if step.name == "token"] == ["right"]


@pytest.mark.parametrize(
    ("reply", "ok"), [(Reply(200, b"{}"), True), (Reply(403, b'{"errors":[{"code":"DENIED"}]}'), False)]
)
def test_a_peer_is_asked_by_the_name_of_its_own_host(reply: Reply, ok: bool) -> None:
    """An address in ``peers`` need not be one of the peer's names."""
    world = World({"mirror-2:8080": lambda _: Reply(404), "mirror.example": lambda _: reply})

    def agent_for(one: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        assert one.proxy == ""
        reached("mirror-2", ADDRESS)
        return world.agent

    settings = load({"domain": "mirror.example"}, {})
    work = Outcome(diagnose_peer("http://mirror-2:8080", settings, agent_for, Clock()))
    world.agent.flush()
    found: Diagnosis = work.get()
    assert (found.ok, found.is_peer, found.url) == (ok, True, "http://mirror-2:8080")
    assert steps(found)[:3] == [(name, True) for name in ("name", "connection", "TLS")]
    assert {seen.path for seen in world.seen} == {"/v2/"}
