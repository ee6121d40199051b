"""The challenge that clients are sent: one, and the mirror's own."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.oci.challenge import parse_challenges
from tests.fake_registry import Passwords, Registry, basic, error
from tests.fakes import Reply
from tests.house import Answer, House
from tests.internet import AUTH, HUB, PASSWORD, PRIVATE, USER, Internet

DOCKER, K8S, BASIC = "docker.mirror.example", "k8s.mirror.example", "basic.mirror.example"
DIGEST = f"sha256:{'0' * 64}"
PATHS = {
    "/v2/": None,
    "/v2": None,
    "/v2/busybox/manifests/latest": "repository:busybox:pull",
    f"/v2/library/busybox/manifests/{DIGEST}": "repository:library/busybox:pull",
    f"/v2/team/image/blobs/{DIGEST}": "repository:team/image:pull",
    "/v2/busybox/tags/list?n=1": "repository:busybox:pull",
    f"/v2/busybox/referrers/{DIGEST}?artifactType=x": "repository:busybox:pull",
    "/v2/_catalog": "registry:catalog:*",
}


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and all others."""
    return Internet()


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror in front, also of a registry with passwords."""
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    return House(internet, upstream=["basic=https://basic.example"])


def challenge(answer: Answer) -> tuple[str, dict[str, str]]:
    """The only one, in the only line."""
    assert answer.error[0] == 401
    (line,) = answer.lines("WWW-Authenticate")
    (parsed,) = parse_challenges([line])
    assert str(parsed) == line, "strictly written"
    return parsed.scheme, dict(parsed.parameters)


def test_what_no_header_may_hold_is_not_passed_on(house: House, internet: Internet) -> None:
    """Unsafe characters in an upstream's realm are not passed on."""
    demand = ("WWW-Authenticate", 'Basic realm="a\x1bb\x00\u00e9"')
    internet.reply("basic.example", "/v2/", error(401, "UNAUTHORIZED").having(demand))
    (line,) = house.get(BASIC, "/v2/").lines("WWW-Authenticate")
    assert line.startswith('Basic realm="a?b?')
    assert line.isprintable()
    assert line.isascii()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "scope"), PATHS.items())
def test_every_path_has_one(house: House, path: str, scope: str | None, method: str) -> None:
    """Its realm is the mirror's token service, its scope is in the client's own spelling."""
    answer = house.ask(method, f"{DOCKER}:8080", path)
    assert answer.status == 401
    expected = f'Bearer realm="http://{DOCKER}:8080/v2/auth",service="{DOCKER}:8080"'
    expected += f',scope="{scope}"' if scope else ""
    assert answer.lines("WWW-Authenticate") == [expected]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent",
    [
        (),
        ("Negotiate",),
        ("nonsense,,=",),
        ('Basic realm="x"', 'Bearer realm="https://elsewhere.example/token",service="s",scope="aws"'),
        ('Basic realm="x", bearer realm=unquoted,scope="repository:other:pull,push"',),
    ],
)
def test_whatever_the_upstream_sent(
    internet: Internet, house: House, path: str, sent: tuple[str, ...]
) -> None:
    """Nothing, several, or something that names another place: gcr.io sends none on repositories' paths."""
    refusal = error(401, "UNAUTHORIZED").having(*(("WWW-Authenticate", line) for line in sent))
    plain = path.partition("?")[0].replace("/v2/busybox", "/v2/library/busybox")
    internet.reply(HUB, "/v2/" if plain == "/v2" else plain, refusal)
    scheme, parameters = challenge(house.get(DOCKER, path))
    assert (scheme, parameters["realm"]) == ("Bearer", f"http://{DOCKER}/v2/auth")
    assert parameters.get("scope") == PATHS[path]
    assert parameters["service"] == DOCKER


def test_over_tls_its_realm_is_encrypted(house: House) -> None:
    """New clients refuse an http realm of an https registry."""
    answer = house.connect(secure=True).ask("GET", f"{DOCKER}:8443", "/v2/").answer
    assert challenge(answer)[1]["realm"] == f"https://{DOCKER}:8443/v2/auth"


@pytest.mark.parametrize("name", ["invalid_token", "insufficient_scope", 'odd"\\,one'])
def test_the_upstreams_error_is_kept(internet: Internet, house: House, name: str) -> None:
    """The upstream's ``error`` is kept.

    Without it containerd tries five times, and podman does not widen its scope.
    """
    written = name.replace("\\", "\\\\").replace('"', '\\"')
    demand = ("WWW-Authenticate", f'Bearer realm="https://{AUTH}/token",error="{written}"')
    internet.reply(HUB, "/v2/team/image/manifests/1", error(401, "UNAUTHORIZED").having(demand))
    answer = house.get(DOCKER, "/v2/team/image/manifests/1", "Authorization: Bearer old")
    assert challenge(answer)[1]["error"] == name


def test_a_refused_login_has_one(house: House) -> None:
    """The token service's 401, too."""
    answer = house.get(
        DOCKER, "/v2/auth?scope=repository:busybox:pull", f"Authorization: {basic(USER, 'wrong')}"
    )
    assert answer.error == (401, "UNAUTHORIZED")
    assert challenge(answer)[0] == "Bearer"


def test_what_is_demanded_of_credentials(house: House) -> None:
    """``/v2/`` with wrong ones is challenged as without: that is how a login fails."""
    assert challenge(house.get(DOCKER, "/v2/", "Authorization: Bearer wrong"))[0] == "Bearer"


def test_none_where_nothing_is_demanded(house: House) -> None:
    """registry.k8s.io lets everybody in."""
    answer = house.get(K8S, "/v2/")
    assert (answer.status, answer.json, answer["WWW-Authenticate"]) == (200, {}, None)


class TestBasic:
    """An upstream that only offers Basic authentication."""

    @pytest.mark.parametrize("path", ["/v2/", "/v2/team/image/manifests/1", "/v2/_catalog"])
    def test_is_relayed_as_basic(self, house: House, path: str) -> None:
        """Its challenge is relayed as Basic with its own realm, which is no URL."""
        assert challenge(house.get(BASIC, path)) == ("Basic", {"realm": "Registry Realm"})

    def test_has_a_realm(self, internet: Internet, house: House) -> None:
        """The challenge always has a realm, since clients stop at an empty value."""
        internet.reply("basic.example", "/v2/", Reply(401, b"", (("WWW-Authenticate", "Basic"),)))
        assert challenge(house.get(BASIC, "/v2/")) == ("Basic", {"realm": BASIC})

    def test_passwords_reach_the_upstream(self, internet: Internet, house: House) -> None:
        """The client's password is passed to the upstream, which accepts it."""
        assert house.get(BASIC, "/v2/", f"Authorization: {basic(USER, PASSWORD)}").status == 200
        assert house.get(BASIC, "/v2/", f"Authorization: {basic(USER, 'wrong')}").status == 401
        assert [seen.authorization for seen in internet.seen] == [basic(USER, PASSWORD), basic(USER, "wrong")]

    def test_has_no_tokens(self, house: House) -> None:
        """A client that asks for one is told why not."""
        answer = house.get(BASIC, "/v2/auth?scope=repository:a:pull")
        assert answer.error == (404, "UNSUPPORTED")
        assert "Basic" in answer.message


class TestPing:
    """The answer to ``/v2/``."""

    def test_from_memory_for_minutes(self, internet: Internet, house: House) -> None:
        """A ping does not cost a trip."""
        for seconds, asked in ((0, 1), (200, 1), (99, 1), (1, 2), (299, 2)):
            house.pass_time(seconds)
            assert house.get(DOCKER, "/v2/").status == house.get(DOCKER, "/v2").status == 401
            assert len(internet.asked(HUB)) == asked

    def test_by_the_upstream_where_it_checks_a_password(self, internet: Internet, house: House) -> None:
        """Every time."""
        for count in (1, 2, 3):
            house.get(DOCKER, "/v2/", "Authorization: Bearer x")
            assert [seen.authorization for seen in internet.asked(HUB)] == ["Bearer x"] * count

    @pytest.mark.parametrize("status", [404, 429, 500, 503])
    def test_with_the_upstreams_error(self, internet: Internet, house: House, status: int) -> None:
        """An error of the upstream is passed on and not cached."""
        internet.reply(HUB, "/v2/", Reply(status, b"<html>"), error(401, "UNAUTHORIZED"))
        assert house.get(DOCKER, "/v2/").error[0] == status
        assert house.get(DOCKER, "/v2/").status == 401


def test_a_private_image_is_pulled_with_an_account(internet: Internet, house: House) -> None:
    """A private image is pulled through the whole token dance with the client's own credentials."""
    path = f"/v2/{PRIVATE}/manifests/latest"
    assert house.pull(DOCKER, path, authorization=basic(USER, PASSWORD)).status == 200
    assert internet.asked(AUTH)[0].authorization == basic(USER, PASSWORD)
    assert challenge(house.pull(DOCKER, path))[1]["scope"] == f"repository:{PRIVATE}:pull"
