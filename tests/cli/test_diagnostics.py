"""Whether the mirror can pull from an upstream, told step by step."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, SSLError, TimeoutError
from twisted.internet.task import Clock
from twisted.web.iweb import IAgent

from dockmirror.cli.diagnostics import Diagnosis, diagnose
from dockmirror.config.load import load
from dockmirror.config.settings import UpstreamSettings
from dockmirror.interfaces import IAccount
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.token import Login
from dockmirror.upstream.bounded_endpoint import HandshakeTimedOut
from dockmirror.upstream.checked_endpoint import AddressRefused
from dockmirror.upstream.proxy import Proxy, ProxyError, ProxySettings
from dockmirror.upstream.upstream_accounts import FixedAccount
from tests.fake_registry import Passwords, Registry, error
from tests.fakes import DEAD, SILENT, Reply
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
    **settings: Any,
) -> Diagnosis:
    """What comes of one upstream."""
    upstream = load({"upstreams": {name: settings}} if settings else {}, {}).upstreams[name]

    def agent_for(one: UpstreamSettings, reached: Callable[[str, str], None]) -> IAgent:
        if resolved:
            reached(one.url.partition("://")[2], ADDRESS)
        return internet.agent

    clock = Clock()
    work = Outcome(diagnose(name, upstream, agent_for, proxies, clock, account))
    internet.agent.flush()
    clock.advance(upstream.timeout)
    found: Diagnosis = work.get()
    return found


def steps(found: Diagnosis) -> list[tuple[str, bool]]:
    """What was tried, and whether it went well."""
    return [(step.name, step.well) for step in found.steps]


def alice(password: str = PASSWORD) -> IAccount:
    """An account of Alice's."""
    return FixedAccount(Login(Credentials.basic(USER, password)))


@pytest.fixture
def internet() -> Internet:
    """In which Docker Hub has 76 pulls left for us."""
    internet = Internet()
    internet.reply(HUB, PREVIEW, Reply(200, b"", (*TOLD, ("RateLimit-Remaining", "76;w=21600"))))
    return internet


def test_all_is_well(internet: Internet) -> None:
    """Each step is told of, and no pull is spent: there is one HEAD, of what is there for that."""
    found = examined(internet)
    assert found.well
    assert steps(found) == [
        (name, True) for name in ("name", "connection", "TLS", "/v2/", "token", "limit")
    ]  # fmt: skip
    assert found.addresses == [ADDRESS]
    told = [step.told for step in found.steps]
    assert told[0] == ADDRESS
    assert told[3] == f"it asks for a token of https://{AUTH}/token"
    assert told[5] == "76 of 100 pulls are left"
    asked = [(seen.method, seen.path) for seen in internet.asked(HUB)]
    assert set(asked) == {("GET", "/v2/"), ("HEAD", PREVIEW)}


@pytest.mark.parametrize("name", ["quay", "k8s", "mcr", "ghcr"])
def test_others(internet: Internet, name: str) -> None:
    """Have no limit that could be asked for; some let everybody in."""
    found = examined(internet, name)
    assert found.well
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
def test_not_reached(internet: Internet, failure: Exception, failed: list[tuple[str, bool]]) -> None:
    """The step that fails is the last, and tells the reason."""
    internet.agent.failing[HUB] = failure
    found = examined(internet)
    assert steps(found) == failed
    assert not found.well
    assert str(failure) in found.steps[-1].told or isinstance(failure, ConnectionRefusedError)


def test_never_resolved(internet: Internet) -> None:
    """What takes too long before an address is known is the name, unless a proxy is told it."""
    internet.agent.failing[HUB] = TimeoutError(string="connecting took more than 10 s")
    assert steps(examined(internet, resolved=False)) == [("name", False)]
    through = examined(internet, proxies=ProxySettings(PROXY, PROXY), resolved=False)
    assert steps(through) == [("name", True), ("connection", False)]
    assert through.steps[0].told == "left to the proxy"


def test_something_else_answers(internet: Internet) -> None:
    """Where a registry should be."""
    internet.reply(HUB, "/v2/", Reply(200, b"<html>", (("Content-Type", "text/html"),)))
    assert steps(examined(internet))[-1] == ("/v2/", False)
    for reply in (Reply(503), DEAD, SILENT):
        internet.reply(HUB, "/v2/", reply)
        assert steps(examined(internet))[-1] == ("/v2/", False)


def test_account(internet: Internet) -> None:
    """Is used for the token, and told of where it is refused; its password is not told."""
    assert examined(internet, account=alice()).steps[4].told == "given to the mirror's own account"
    found = examined(internet, account=alice("wr0ng"))
    assert steps(found)[-1] == ("token", False)
    assert "wr0ng" not in str(found)


def test_basic(internet: Internet) -> None:
    """A registry without tokens takes the password, or does not; without an account clients may log in."""
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    mine: dict[str, Any] = {"url": "https://basic.example"}
    assert examined(internet, "mine", alice(), **mine).well
    assert steps(examined(internet, "mine", alice("wr0ng"), **mine))[-1] == ("token", False)
    anonymous = examined(internet, "mine", **mine)
    assert anonymous.well
    assert "only clients that log in" in anonymous.steps[-1].told


def test_token_service(internet: Internet) -> None:
    """That does not answer is no good; that gives nothing to nobody for nothing has answered."""
    internet.reply("quay.io", "/v2/auth", Reply(502))
    assert steps(examined(internet, "quay"))[-1] == ("token", False)
    internet.reply("quay.io", "/v2/auth", error(401, "UNAUTHORIZED", "who are you?"))
    found = examined(internet, "quay")
    assert found.well
    assert "who are you?" in found.steps[-1].told


@pytest.mark.parametrize(
    ("reply", "well"),
    [
        (Reply(200, b"", (*TOLD, ("RateLimit-Remaining", "0;w=21600"))), False),
        (Reply(200, b"", TOLD), True),
        (error(429, "TOOMANYREQUESTS"), False),
        (error(404, "MANIFEST_UNKNOWN"), True),
    ],
)
def test_limit(internet: Internet, reply: Reply, well: bool) -> None:
    """Is not well when nothing is left; that none is told is no harm."""
    internet.reply(HUB, PREVIEW, reply)
    assert steps(examined(internet))[-1] == ("limit", well)


def test_proxy(internet: Internet) -> None:
    """Is named, without its password."""
    found = examined(internet, proxies=ProxySettings(PROXY, PROXY))
    assert found.steps[1].told == "through the proxy http://proxy.example:3128"
    assert "s3cret" not in str(found)
