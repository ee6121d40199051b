"""An upstream: several addresses, allowed connections, and the mirror's own accounts."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from dockmirror.app.accounts import REST, Accounts, load_accounts, load_credentials
from dockmirror.app.upstream_stack import (
    PrivateAddressDetector,
    UpstreamContext,
    make_agent,
    make_upstream,
)
from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, UpstreamSettings
from dockmirror.metrics import Metrics
from dockmirror.oci.token import Credentials, Login
from dockmirror.status.status_values import UpstreamHealth
from dockmirror.system.external_program import ProcessResult
from tests.connections import FakeResolver
from tests.fake_registry import Open, Registry, Tokens, basic
from tests.fakes import Reply
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, LAYER, PASSWORD, PRIVATE, USER, Internet
from tests.programs import program
from tests.stacks import now

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
    assert not two.is_private()
    observers[1]("b", "10.0.0.1")
    assert two.is_private() is private
    observers[0]("a", "10.0.0.1")
    assert two.is_private()


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


class RecordedRuns(list[tuple[Sequence[str], Mapping[str, str], bytes]]):
    """Programs that would have run; each gives the same answer."""

    async def __call__(
        self, command: Sequence[str], environ: Mapping[str, str], request: bytes
    ) -> ProcessResult:
        self.append((command, environ, request))
        return ProcessResult(0, b'{"Username":"AWS","Secret":"s3cret"}')


def accounts_of(
    runs: RecordedRuns, environ: dict[str, str], **upstreams: dict[str, Any]
) -> dict[str, Accounts]:
    """Return the accounts of a mirror with these upstreams."""
    settings = load({"networks": ["private"], "upstreams": upstreams}, environ)
    return load_accounts(settings, environ, runs, Clock())


def test_a_password_makes_an_account_and_runs_no_program() -> None:
    runs = RecordedRuns()
    accounts = accounts_of(runs, {"DOCKMIRROR_PASSWORD_DOCKER": "s3cret"}, docker={"username": "alice"})
    assert list(accounts) == ["docker"]
    assert now(accounts["docker"][REST].login()) == Login(Credentials.basic("alice", "s3cret"))
    assert runs == []


@pytest.mark.parametrize("by_path", [True, False])
def test_a_credential_helper_is_found_by_name_or_path(tmp_path: Path, by_path: bool) -> None:
    """It is asked for the registry's host and port, without the mirror's own variables.

    They may hold the passwords of other upstreams.
    """
    path = program(tmp_path / "docker-credential-ecr-login", "")
    runs = RecordedRuns()
    helper = path if by_path else "ecr-login"
    environ = {"PATH": str(tmp_path), "DOCKMIRROR_PASSWORD_GHCR": "s3cret", "DOCKMIRROR_GRACE": "1"}
    work = {"url": "https://registry.example:5000", "credential_helper": helper}
    accounts = accounts_of(runs, environ, work=work, ghcr={"username": "alice"})
    assert now(accounts["work"][REST].login()) == Login(Credentials.basic("AWS", "s3cret"))
    assert runs == [([path, "get"], {"PATH": str(tmp_path)}, b"registry.example:5000")]


def test_a_helper_knows_docker_hub_by_its_old_address(tmp_path: Path) -> None:
    runs = RecordedRuns()
    path = program(tmp_path / "helper", "")
    now(accounts_of(runs, {}, docker={"credential_helper": path})["docker"][REST].login())
    assert [request for _, _, request in runs] == [b"https://index.docker.io/v1/"]


@pytest.mark.parametrize(
    ("upstream", "message"),
    [
        ({"credential_helper": "none"}, "expected a program; docker-credential-none is missing"),
        ({"credential_helper": "/nowhere/helper"}, "expected a program; /nowhere/helper is missing"),
        ({"credential_helper": "/etc/passwd"}, "expected a program; /etc/passwd is missing"),
        ({"credential_helper": "/bin/true", "username": "alice"}, "expected no 'username' beside it"),
    ],
)
def test_an_unusable_helper_is_refused_at_start(upstream: dict[str, Any], message: str) -> None:
    environ = {"PATH": "/usr/bin", **({"DOCKMIRROR_PASSWORD_DOCKER": "x"} if "username" in upstream else {})}
    with pytest.raises(ConfigurationError, match=f"^upstreams.docker.credential_helper: {message}"):
        accounts_of(RecordedRuns(), environ, docker=upstream)


VARIABLE = "DOCKMIRROR_PASSWORD_MY_LAN"


def load_own(environ: dict[str, str], **upstream: Any) -> dict[tuple[str, str], Credentials]:
    """Return the credentials of a mirror with one more upstream, ``my-lan``."""
    table = {"url": "https://lan.example", **upstream}
    settings = load({"networks": ["private"], "upstreams": {"my-lan": table}}, environ)
    return load_credentials(settings, environ)


@pytest.mark.parametrize("password", ["s3cret", " two words ", "line\n", "\r", "pässwörd", "a:b"])
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_password_file_may_end_with_a_newline(tmp_path: Path, password: str, end: str) -> None:
    """All other characters belong to the password; one in the environment wins."""
    file = tmp_path / "password"
    file.write_bytes(f"{password}{end or chr(10) * password.endswith(chr(10))}".encode())
    settings = {"username": "alice", "password_file": str(file)}
    assert load_own({}, **settings) == {("my-lan", REST): Credentials.basic("alice", password)}
    assert load_own({VARIABLE: "other"}, **settings) == {
        ("my-lan", REST): Credentials.basic("alice", "other")
    }


def test_an_upstream_without_a_user_name_has_no_credentials() -> None:
    assert load_own({}) == {}
    assert load_own({VARIABLE: "s3cret"}, username="alice") == {
        ("my-lan", REST): Credentials.basic("alice", "s3cret")
    }


@pytest.mark.parametrize(
    ("environ", "username", "written", "message"),
    [
        ({}, "alice", None, rf"^upstreams\.my-lan\.username: expected a password .* {VARIABLE}$"),
        ({VARIABLE: ""}, "alice", None, r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\n", r"^upstreams\.my-lan\.username: expected a password"),
        ({}, "alice", b"\xff", r"^upstreams\.my-lan\.password_file: expected text"),
        ({}, None, b"s3cret", r"^upstreams\.my-lan\.password_file: expected a 'username'"),
        ({VARIABLE: "s3cret"}, None, None, rf"^the environment: {VARIABLE}: expected an upstream"),
        ({"DOCKMIRROR_PASSWORD_LAN": "s3cret"}, None, None, "^the environment: DOCKMIRROR_PASSWORD_LAN: "),
    ],
)
def test_a_missing_user_name_or_password_is_refused(
    tmp_path: Path, environ: dict[str, str], username: str | None, written: bytes | None, message: str
) -> None:
    """One line names the setting, and not the password."""
    file = tmp_path / "password"
    file.write_bytes(written or b"")
    upstream = {"username": username, "password_file": None if written is None else str(file)}
    with pytest.raises(ConfigurationError, match=message) as raised:
        load_own(environ, **upstream)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)
