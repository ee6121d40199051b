"""An upstream at several addresses, through the whole mirror: what goes where, and what goes nowhere else."""

# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from dockmirror.app.upstream_stack import PrivateAddressDetector, UpstreamParts, make_upstream
from dockmirror.config.load import load
from dockmirror.metrics import Metrics
from dockmirror.status.upstream_health import UpstreamHealth
from tests.fake_registry import Open, Registry, Tokens, basic, error
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
    """Docker Hub, and another registry that has of it what everybody may have, with tokens of its own."""
    internet = Internet()
    tokens = Tokens(f"https://{OTHERS_TOKENS}/token", "gcr", {USER: PASSWORD}, [PRIVATE])
    internet.servers[OTHERS_TOKENS] = tokens
    internet.servers[OTHER] = other = Registry(tokens)
    other.push("library/busybox", "latest", BUSYBOX)
    other.push(PRIVATE, "latest", BUSYBOX)
    other.add("library/busybox", LAYER)
    return internet


def house(internet: Internet, environ: dict[str, str] | None = None, **docker: Any) -> House:
    """A mirror of both."""
    upstream = {"url": URLS, "realms": [f"https://{AUTH}", f"https://{OTHERS_TOKENS}"], **docker}
    return House(internet, environ, networks=["private"], upstreams={"docker": upstream})


def breaks_down(internet: Internet) -> None:
    """Docker Hub can't be connected to any more."""
    internet.agent.failing[HUB] = ConnectionRefusedError()


def by_digest(internet: Internet) -> list[tuple[str, bytes]]:
    """The paths of an image's parts, and what they bring."""
    return [
        (f"/v2/library/busybox/manifests/{internet.busybox}", BUSYBOX),
        (f"/v2/library/busybox/blobs/{internet.layer}", LAYER),
    ]


@pytest.mark.parametrize("host", [OWN, HOST])
def test_what_is_asked_by_digest(internet: Internet, host: str) -> None:
    """Comes from the other, whose own token service gives a token for that."""
    mirror = house(internet)
    breaks_down(internet)
    for path, body in by_digest(internet):
        assert mirror.get(host, path).body == body
    (token,) = internet.asked(OTHERS_TOKENS)
    assert token.authorization is None
    assert internet.asked(AUTH) == []


def test_a_token_of_one_goes_to_no_other(internet: Internet) -> None:
    """Each is sent what its own service gave."""
    mirror = house(internet)
    ((path, _), *_) = by_digest(internet)
    mirror.get(OWN, path)
    breaks_down(internet)
    assert mirror.get(OWN, path).status == 200
    for host, service in ((HUB, AUTH), (OTHER, OTHERS_TOKENS)):
        sent = [seen.authorization for seen in internet.asked(host) if seen.path == path]
        assert sent == [None, "Bearer t0ken-0-anonymous"]
        assert len(internet.asked(service)) == 1


@pytest.mark.parametrize("path", [TAG, LIST])
def test_what_is_not_asked_by_digest(internet: Internet, path: str) -> None:
    """Is the registry's own to say."""
    mirror = house(internet)
    breaks_down(internet)
    assert mirror.get(OWN, path).error == (502, "UNAVAILABLE")
    assert internet.asked(OTHER) == []


def test_a_clients_credentials_go_to_no_other_registry(internet: Internet) -> None:
    """Neither its token nor its password; nor is it asked without them."""
    mirror = house(internet)
    breaks_down(internet)
    for path, _ in by_digest(internet):
        for header in (LOGIN, "Authorization: Bearer t0ken"):
            assert mirror.get(HOST, path, header).status == 502
    assert mirror.get(HOST, "/v2/auth?service=x&scope=repository:library/busybox:pull", LOGIN).status == 502
    assert internet.asked(OTHER) == internet.asked(OTHERS_TOKENS) == []


def test_the_mirrors_account_is_not_for_another_registry(internet: Internet) -> None:
    """That is asked as anybody may ask."""
    mirror = house(internet, {"DOCKMIRROR_PASSWORD_DOCKER": PASSWORD}, username=USER)
    breaks_down(internet)
    for path, body in by_digest(internet):
        assert mirror.get(HOST, path).body == body
    private = f"/v2/{PRIVATE}/manifests/{internet.busybox}"
    assert mirror.get(HOST, private).status == 502
    assert not any(seen.authorization for seen in internet.asked(OTHERS_TOKENS))
    assert not any("Basic" in str(seen.authorization) for seen in internet.asked(OTHER))


@pytest.mark.parametrize(
    "reply", [Reply(503), error(429, "TOOMANYREQUESTS", "no", ("Retry-After", "60")), Reply(500, b"<html>")]
)
def test_what_the_first_cannot_give(internet: Internet, reply: Reply) -> None:
    """Is had from the other."""
    ((path, body), *_) = by_digest(internet)
    internet.reply(HUB, path, reply)
    assert house(internet).get(OWN, path).body == body


def test_a_refusal_is_no_failure(internet: Internet) -> None:
    """The other is not asked for what the first does not have."""
    path = f"/v2/{PRIVATE}/manifests/{internet.busybox}"
    assert house(internet).get(OWN, path).error == (403, "DENIED")
    assert internet.asked(OTHER) == []


def test_a_wrong_content_is_not_passed_on(internet: Internet) -> None:
    """Whoever sends it; that the registry cannot be reached is what is true then."""
    mirror = house(internet)
    breaks_down(internet)
    ((manifest, _), (blob, _)) = by_digest(internet)
    internet.servers[OTHER] = Registry(Open())
    internet.reply(OTHER, manifest, Reply(200, b"{}", (("Content-Type", "application/json"),)))
    internet.reply(OTHER, blob, Reply(200, b"wrong"))
    assert mirror.get(OWN, manifest).error == (502, "UNAVAILABLE")
    assert mirror.get(OWN, blob).error == (502, "UNAVAILABLE")


def test_a_replica_has_everything(internet: Internet) -> None:
    """Tags, lists, the handshake, and what is private for whoever logs in; tokens are its own service's."""
    mirror = house(internet, replicas=True)
    breaks_down(internet)
    assert mirror.get(OWN, TAG).body == BUSYBOX
    assert mirror.get(OWN, LIST).status == 200
    path = f"/v2/{PRIVATE}/manifests/latest"
    assert mirror.pull(HOST, path, authorization=basic(USER, PASSWORD)).body == BUSYBOX
    assert internet.asked(AUTH) == []
    assert basic(USER, PASSWORD) in [seen.authorization for seen in internet.asked(OTHERS_TOKENS)]


def test_a_replicas_realm_is_looked_at(internet: Internet) -> None:
    """A password goes to no token service that is not on its own host, or named."""
    mirror = house(internet, replicas=True, realms=[f"https://{AUTH}"])
    breaks_down(internet)
    answer = mirror.get(HOST, "/v2/auth?service=x", LOGIN)
    assert answer.error == (403, "DENIED")
    assert internet.asked(OTHERS_TOKENS) == []


def test_the_mirrors_account_is_for_replicas(internet: Internet) -> None:
    """Also for what is private."""
    mirror = house(internet, {"DOCKMIRROR_PASSWORD_DOCKER": PASSWORD}, username=USER, replicas=True)
    breaks_down(internet)
    assert mirror.get(HOST, f"/v2/{PRIVATE}/manifests/latest").body == BUSYBOX


def test_failures_are_counted_by_the_upstreams_name(internet: Internet) -> None:
    """Of each of its addresses, and by no address."""
    mirror = house(internet)
    breaks_down(internet)
    mirror.get(OWN, by_digest(internet)[0][0])
    failures = mirror.metrics.upstream_failures.labels("docker", "unreachable")
    assert failures._value.get() == 1


@pytest.mark.parametrize(("replicas", "private"), [(True, True), (False, False)])
def test_a_private_address(replicas: bool, private: bool) -> None:
    """Of any address of the registry itself is noted; another registry's says nothing of what this gives."""
    tells: list[Any] = []

    def agent_for(_: object, reached: Any) -> Any:
        tells.append(reached)

    settings = load({"upstreams": {"two": {"url": ["https://a", "https://b"], "replicas": replicas}}}, {})
    metrics = Metrics(CollectorRegistry())
    two: UpstreamParts = make_upstream(
        "two", settings.upstreams["two"], agent_for, Clock(), metrics, UpstreamHealth(Clock()), None
    )
    assert [isinstance(each, PrivateAddressDetector) for each in tells] == [True, True]
    assert not two.privately()
    tells[1]("b", "10.0.0.1")
    assert two.privately() is private
    tells[0]("a", "10.0.0.1")
    assert two.privately()
