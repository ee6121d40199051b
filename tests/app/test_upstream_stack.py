"""An upstream: several addresses, allowed connections, and the mirror's own accounts."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from dockmirror.app.upstream_stack import UpstreamContext, make_agent, make_upstream
from dockmirror.config.load import load
from dockmirror.config.settings import UpstreamSettings
from dockmirror.metrics import Metrics
from dockmirror.oci.request import Repository
from dockmirror.status import UpstreamHealth
from dockmirror.upstream.addresses import PrivateAddressDetector
from tests.connections import FakeResolver
from tests.fake_registry import Open, Registry, Tokens, basic
from tests.fakes import Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, LAYER, PASSWORD, PRIVATE, USER, Internet

OTHER, OTHERS_TOKENS = "mirror.gcr.example", "tokens.gcr.example"
URLS = [f"https://{HUB}", f"https://{OTHER}"]
OWN, HOST = "mirror.example", "docker.mirror.example"
LOGIN = f"Authorization: {basic(USER, PASSWORD)}"
TAG = "/v2/library/busybox/manifests/latest"
LIST = "/v2/library/busybox/tags/list"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub, and a mirror of its public images with a token service of its own."""
    internet = Internet()
    tokens = Tokens(f"https://{OTHERS_TOKENS}/token", "gcr", {USER: PASSWORD}, [PRIVATE])
    internet.servers[OTHERS_TOKENS] = tokens
    internet.servers[OTHER] = other = Registry(tokens)
    other.push("library/busybox", "latest", BUSYBOX)
    other.push(PRIVATE, "latest", BUSYBOX)
    other.add("library/busybox", LAYER)
    return internet


def make_house(internet: Internet, environ: dict[str, str] | None = None, **docker: Any) -> House:
    """Build a mirror of both addresses, and let every connection to Docker Hub fail."""
    internet.agent.failing[HUB] = ConnectionRefusedError()
    upstream = {"url": URLS, "realms": [f"https://{AUTH}", f"https://{OTHERS_TOKENS}"], **docker}
    return House(internet, environ, networks=["private"], upstreams={"docker": upstream})


def content_by_digest(internet: Internet) -> list[tuple[str, bytes]]:
    """Return the paths of an image's manifest and layer, and their bytes."""
    return [
        (f"/v2/library/busybox/manifests/{internet.busybox}", BUSYBOX),
        (f"/v2/library/busybox/blobs/{internet.layer}", LAYER),
    ]


@pytest.mark.parametrize("host", [OWN, HOST])
def test_another_address_serves_digests_while_the_first_is_down(internet: Internet, host: str) -> None:
    """Its own token service grants the access; tags and lists come from the registry itself."""
    mirror = make_house(internet)
    for path, body in content_by_digest(internet):
        assert mirror.get(host, path).body == body
    (token,) = internet.asked(OTHERS_TOKENS)
    assert token.authorization is None
    assert internet.asked(AUTH) == []
    for path in (TAG, LIST):
        assert mirror.get(OWN, path).error == (502, "UNAVAILABLE")
    failures = mirror.metrics.upstream_failures.labels("docker", "unreachable")
    assert failures._value.get() >= 1


def test_a_token_goes_only_to_the_address_that_it_is_for(internet: Internet) -> None:
    mirror = make_house(internet)
    ((path, _), *_) = content_by_digest(internet)
    refused = internet.agent.failing.pop(HUB)
    mirror.get(OWN, path)
    internet.agent.failing[HUB] = refused
    assert mirror.get(OWN, path).status == 200
    for host, service in ((HUB, AUTH), (OTHER, OTHERS_TOKENS)):
        sent = [seen.authorization for seen in internet.asked(host) if seen.path == path]
        assert sent == [None, "Bearer t0ken-0-anonymous"]
        assert len(internet.asked(service)) == 1


def test_a_clients_credentials_go_to_no_other_registry(internet: Internet) -> None:
    """Another registry is not asked anonymously either."""
    mirror = make_house(internet)
    for path, _ in content_by_digest(internet):
        for header in (LOGIN, "Authorization: Bearer t0ken"):
            assert mirror.get(HOST, path, header).status == 502
    assert mirror.get(HOST, "/v2/auth?service=x&scope=repository:library/busybox:pull", LOGIN).status == 502
    assert internet.asked(OTHER) == internet.asked(OTHERS_TOKENS) == []


TEAM = {"name": "team", "repositories": ["library/*", "alice/*"], "username": USER}


@pytest.mark.parametrize(
    ("variable", "login"),
    [
        ("DOCKMIRROR_PASSWORD_DOCKER", {"username": USER}),
        ("DOCKMIRROR_PASSWORD_DOCKER__TEAM", {"accounts": [TEAM]}),
    ],
)
def test_the_mirrors_account_goes_to_no_other_registry(
    internet: Internet, variable: str, login: dict[str, Any]
) -> None:
    """The other registry is asked anonymously."""
    mirror = make_house(internet, {variable: PASSWORD}, **login)
    for path, body in content_by_digest(internet):
        assert mirror.get(HOST, path).body == body
    assert mirror.get(HOST, f"/v2/{PRIVATE}/manifests/{internet.busybox}").status == 502
    assert not any(seen.authorization for seen in internet.asked(OTHERS_TOKENS))
    assert not any("Basic" in str(seen.authorization) for seen in internet.asked(OTHER))


def test_wrong_content_of_another_address_is_not_served(internet: Internet) -> None:
    """The client gets the error of the registry itself."""
    mirror = make_house(internet)
    ((manifest, _), (blob, _)) = content_by_digest(internet)
    internet.servers[OTHER] = Registry(Open())
    internet.reply(OTHER, manifest, Reply(200, b"{}", (("Content-Type", "application/json"),)))
    internet.reply(OTHER, blob, Reply(200, b"wrong"))
    for path in (manifest, blob):
        assert mirror.get(OWN, path).error == (502, "UNAVAILABLE")


def test_a_replica_serves_tags_lists_and_private_images(internet: Internet) -> None:
    """Its own token service takes the clients' logins, and the mirror's."""
    mirror = make_house(internet, replicas=True)
    assert mirror.get(OWN, TAG).body == BUSYBOX
    assert mirror.get(OWN, LIST).status == 200
    path = f"/v2/{PRIVATE}/manifests/latest"
    assert mirror.pull(HOST, path, authorization=basic(USER, PASSWORD)).body == BUSYBOX
    assert internet.asked(AUTH) == []
    assert basic(USER, PASSWORD) in [seen.authorization for seen in internet.asked(OTHERS_TOKENS)]
    own = make_house(internet, {"DOCKMIRROR_PASSWORD_DOCKER": PASSWORD}, username=USER, replicas=True)
    assert own.get(HOST, path).body == BUSYBOX
    environ = {"DOCKMIRROR_PASSWORD_DOCKER__TEAM": PASSWORD}
    assert make_house(internet, environ, accounts=[TEAM], replicas=True).get(HOST, path).body == BUSYBOX


def test_a_password_goes_to_no_untrusted_token_service_of_a_replica(internet: Internet) -> None:
    mirror = make_house(internet, replicas=True, realms=[f"https://{AUTH}"])
    assert mirror.get(HOST, "/v2/auth?service=x", LOGIN).error == (403, "DENIED")
    assert internet.asked(OTHERS_TOKENS) == []


@pytest.mark.parametrize(("replicas", "private"), [(True, True), (False, False)])
def test_a_private_address_of_the_registry_itself_is_detected(replicas: bool, private: bool) -> None:
    """The address of another registry says nothing about this one."""
    observers: list[Any] = []

    def agent_for(_: object, reached: Any) -> Any:
        observers.append(reached)

    settings = load({"upstreams": {"two": {"url": ["https://a", "https://b"], "replicas": replicas}}}, {})
    metrics, health = Metrics(CollectorRegistry()), UpstreamHealth(Clock())
    context = UpstreamContext("two", settings.upstreams["two"], agent_for, Clock(), metrics, health)
    two = make_upstream(context)
    assert [isinstance(each, PrivateAddressDetector) for each in observers] == [True, True]
    assert two.may_mark_public(context, Repository("team/app"))
    observers[1]("b", "10.0.0.1")
    assert two.may_mark_public(context, Repository("team/app")) is not private
    observers[0]("a", "10.0.0.1")
    assert not two.may_mark_public(context, Repository("team/app"))


NAMES = {"r.example": ["10.1.2.3"], "auth.example": ["10.1.2.4"], "cdn.example": ["10.1.2.5"]}


def dial(url: str, **settings: Any) -> list[tuple[str, int]]:
    """Return the addresses and ports that a request to *url* connects to."""
    reactor = MemoryReactorClock()
    upstream = UpstreamSettings.model_validate({"url": "http://r.example:5000", **settings})
    request = make_agent(upstream, FakeResolver(NAMES), {}, lambda *_: None, reactor).request(
        b"GET", url.encode()
    )
    request.addErrback(lambda _: None)
    reactor.advance(0)
    return [(host, port) for host, port, *_ in reactor.tcpClients]


@pytest.mark.parametrize(
    ("url", "settings", "reached"),
    [
        ("http://r.example:5000/", {}, 1),
        ("http://auth.example:5001/", {"realms": ["http://auth.example:5001"]}, 1),
        ("http://cdn.example:9000/", {"addresses": {"cdn.example": ["10.1.2.5"]}}, 1),
        ("http://r.example:6379/", {"allow_networks": ["10.0.0.0/8"]}, 1),
        ("http://r.example:6379/", {}, 0),
        ("http://r.example/", {}, 0),
        ("http://r.example.:6379/", {"addresses": {"r.example": ["10.1.2.3"]}}, 0),
        ("http://auth.example:6379/", {"realms": ["http://auth.example:5001"]}, 0),
    ],
)
def test_a_private_address_is_reached_if_the_settings_name_its_host_and_port(
    url: str, settings: dict[str, Any], reached: int
) -> None:
    """They may name its network; a redirect to the upstream's host leads to no other server there."""
    assert len(dial(url, **settings)) == reached
