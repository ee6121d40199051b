"""Access by network, virtual hosts, and the paths of a host."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.config.known_registries import KNOWN
from dockmirror.system.networks import normalize_host
from tests.fake_registry import basic
from tests.house import House
from tests.internet import BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet

DOCKER, OWN = "docker.mirror.example", "mirror.example"
MANIFEST = "/v2/library/busybox/manifests/latest"


@pytest.fixture
def house() -> House:
    """The mirror in front of the well-known registries."""
    return House(Internet())


class TestHosts:
    """One virtual host for each registry, and the mirror's own."""

    @pytest.mark.parametrize("name", [known.name for known in KNOWN])
    def test_each_registry_has_one(self, house: House, name: str) -> None:
        """Each registry has a host, where public images need no account."""
        answer = house.pull(f"{name}.mirror.example", "/v2/team/image/manifests/1")
        assert (answer.status, answer.body) == (200, b'{"schemaVersion":2}')

    @pytest.mark.parametrize("name", [known.name for known in KNOWN])
    def test_each_takes_logins(self, house: House, name: str) -> None:
        """Credentials reach its own token service, on whichever host that is."""
        host = f"{name}.mirror.example"
        path = f"/v2/{PRIVATE}/manifests/latest"
        assert house.pull(host, path, authorization=basic(USER, PASSWORD)).body == BUSYBOX

    @pytest.mark.parametrize(
        "host",
        [
            DOCKER, "DOCKER.Mirror.EXAMPLE", f"{DOCKER}.", f"{DOCKER}:8080", f"{DOCKER}.:8080", f"{DOCKER}:",
        ],
    )  # fmt: skip
    def test_spellings(self, house: House, host: str) -> None:
        """Letter case, a port and a last dot make no difference; the realm is where the client asked."""
        answer = house.get(host, MANIFEST)
        assert answer.status == 401
        assert f'realm="http://{host}/v2/auth"' in str(answer["WWW-Authenticate"])

    @pytest.mark.parametrize(
        "host",
        [OWN, "localhost", "localhost:8080", "127.0.0.1", "192.0.2.1:8080", "[::1]", "[2001:DB8::1]:8080"],
    )
    def test_the_mirrors_own(self, house: House, host: str) -> None:
        """The own host is ``domain``, localhost, and any address."""
        assert house.get(host, "/v2/").status == 200

    def test_further_names(self) -> None:
        """Operators may add names."""
        house = House(Internet(), names=["mirror.lan", "m"])
        assert [house.get(host, "/v2/").status for host in ("mirror.lan", "M:80", "other.lan")] == [
            200,
            200,
            404,
        ]

    def test_a_pattern(self) -> None:
        """Puts the hosts elsewhere, as one-level wildcard certificates need it."""
        house = House(Internet(), hosts="{name}-{domain}")
        assert house.get("docker-mirror.example", "/v2/").status == 401
        assert house.get(DOCKER, "/v2/").status == 404

    @pytest.mark.parametrize("path", ["/", "/v2/", MANIFEST, "/v2/auth", "/what/ever?x"])
    @pytest.mark.parametrize(
        "host", ["unknown.example", "docker.mirror.example.org", "mirror.example.docker", ""]
    )
    def test_an_unknown_one(self, house: House, host: str, path: str) -> None:
        """An unknown host gets 404 with the known ones."""
        answer = house.get(host, path)
        assert answer.status == 404
        assert set(answer.json["hosts"]) == {
            "mirror.example",
            *(f"{k.name}.mirror.example" for k in KNOWN if k.follows is None),
        }
        assert house.world.seen == []

    def test_an_unknown_one_with_a_default(self) -> None:
        """An unknown host is the default upstream, if one is set."""
        house = House(Internet(), default="docker")
        assert house.pull("whatever.example", "/v2/busybox/manifests/latest").body == BUSYBOX
        assert house.get("k8s.mirror.example", "/v2/").status == 200
        assert house.get("127.0.0.1", "/v2/").status == 200

    @pytest.mark.parametrize("method", ["POST", "DELETE", "HEAD"])
    def test_an_unknown_one_by_any_method(self, house: House, method: str) -> None:
        """An unknown host gets 404 for every method."""
        assert house.ask(method, "unknown.example", "/v2/").status == 404


class TestPage:
    """Resources beside ``/v2/``."""

    @pytest.mark.parametrize(
        ("host", "text"), [(DOCKER, "docker pull docker.mirror.example"), (OWN, "k8s.mirror")]
    )
    def test_a_short_text(self, house: House, host: str, text: str) -> None:
        """A short text describes the host."""
        answer = house.get(host, "/")
        assert (answer.status, answer["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert text in answer.body.decode()
        assert house.ask("HEAD", host, "/").status == 200

    @pytest.mark.parametrize("host", [DOCKER, OWN])
    @pytest.mark.parametrize(
        "path",
        ["/v1/", "/v2x", "//", "//v2/", "/a/v2/", "/v2%2F", "/..%2fv2/", "/index.html", "/%00", "/V2/"],
    )
    def test_nothing_else_is_there(self, house: House, host: str, path: str) -> None:
        """404 in the registry's own format, and nobody is asked."""
        assert house.get(host, path).error == (404, "UNSUPPORTED")
        assert house.world.seen == []

    def test_a_method_that_it_has_not(self, house: House) -> None:
        """Other methods get 405 with the allowed ones."""
        answer = house.ask("POST", DOCKER, "/")
        assert answer.error == (405, "UNSUPPORTED")
        assert "GET" in str(answer["Allow"])


class TestGate:
    """Access by network, checked before anything else."""

    @pytest.mark.parametrize("path", ["/", "/v2/", MANIFEST, "/v2/auth", "/nothing"])
    @pytest.mark.parametrize("host", [DOCKER, OWN, "unknown.example"])
    @pytest.mark.parametrize("peer", ["8.8.8.8", "2001:4860::1", "::ffff:8.8.8.8"])
    def test_other_networks_are_not(self, house: House, peer: str, host: str, path: str) -> None:
        """The refusal names the setting that decides it."""
        answer = house.connect(peer).ask("GET", host, path).answer
        assert answer.error == (403, "DENIED")
        assert "'networks'" in answer.message
        assert house.world.seen == []

    @pytest.mark.parametrize(
        "peer", ["127.0.0.1", "::1", "::ffff:10.1.2.3", "100.64.0.1", "fe80::1%eth0", "fd00::1"]
    )
    def test_private_ones_are(self, house: House, peer: str) -> None:
        """Private networks are allowed by default."""
        assert house.connect(peer).ask("GET", OWN, "/v2/").answer.status == 200

    def test_the_whole_world_may_be(self) -> None:
        """Operators may allow every network."""
        house = House(Internet(), networks=["public"])
        assert house.connect("8.8.8.8").ask("GET", OWN, "/v2/").answer.status == 200

    @pytest.mark.parametrize(
        "header",
        ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: h",
         "Forwarded: for=10.0.0.1", "X-Real-IP: 10.0.0.1", "CF-Connecting-IP: 10.0.0.1",
         "True-Client-IP: 10.0.0.1"],
    )  # fmt: skip
    def test_a_proxy_nobody_named(self, house: House, header: str) -> None:
        """Would make the whole world look private, and is refused."""
        answer = house.connect("127.0.0.1").ask("GET", OWN, "/v2/", header).answer
        assert answer.error == (403, "DENIED")
        assert "'trust_proxy'" in answer.message

    def test_a_proxy_that_is_believed(self) -> None:
        """A trusted proxy names the client, and the scheme and host for the realm."""
        house = House(Internet(), trust_proxy=["127.0.0.1"])
        forwarded = ("X-Forwarded-Proto: https", f"X-Forwarded-Host: {DOCKER}:8443")
        answer = house.connect("127.0.0.1").ask(
            "GET", "backend", "/v2/", "X-Forwarded-For: 8.8.8.8, 10.0.0.9", *forwarded
        )
        assert f'realm="https://{DOCKER}:8443/v2/auth"' in str(answer.answer["WWW-Authenticate"])
        refused = house.connect("127.0.0.1").ask(
            "GET", "backend", "/v2/", "X-Forwarded-For: 8.8.8.8", *forwarded
        )
        assert refused.answer.error == (403, "DENIED")

    def test_a_refusal_tells_nothing_of_the_upstreams(self, house: House) -> None:
        """A refusal does not reveal the upstreams."""
        answer = house.connect("8.8.8.8").ask("GET", DOCKER, "/").answer
        assert HUB not in answer.body.decode()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("A.b:80", "a.b"),
        ("a.b.:80", "a.b"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("a", "a"),
        ("", ""),
        (":80", ""),
    ],
)
def test_names_of_hosts(host: str, name: str) -> None:
    """Host names are normalized."""
    assert normalize_host(host) == name
