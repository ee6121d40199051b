"""The challenge of a 401: exactly one, the mirror's own, or Basic if the upstream knows nothing else."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest

from dockmirror.oci.errors import parse_challenges
from tests.fake_registry import Passwords, Registry, basic, error
from tests.house import Answer, House
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet

DOCKER, K8S, BASIC = "docker.mirror.example", "k8s.mirror.example", "basic.mirror.example"
DIGEST = f"sha256:{'0' * 64}"
PATHS = {
    "/v2/": None,
    "/v2": None,
    "/v2/busybox/manifests/latest": "repository:busybox:pull",
    f"/v2/team/image/blobs/{DIGEST}": "repository:team/image:pull",
    "/v2/busybox/tags/list?n=1": "repository:busybox:pull",
    f"/v2/busybox/referrers/{DIGEST}?artifactType=x": "repository:busybox:pull",
    "/v2/_catalog": "registry:catalog:*",
}


@pytest.fixture
def house(internet: Internet) -> House:
    """The mirror, also of a registry with passwords."""
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    return House(internet, upstream=["basic=https://basic.example"])


def challenge(answer: Answer) -> tuple[str, dict[str, str]]:
    """Return the only challenge, in the only line."""
    assert answer.error[0] == 401
    (line,) = answer.lines("WWW-Authenticate")
    (parsed,) = parse_challenges([line])
    assert str(parsed) == line
    return parsed.scheme, dict(parsed.parameters)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "scope"), PATHS.items())
def test_a_challenge_names_the_mirrors_token_service_and_the_clients_scope(
    house: House, path: str, scope: str | None, method: str
) -> None:
    answer = house.ask(method, f"{DOCKER}:8080", path)
    assert answer.status == 401
    expected = f'Bearer realm="http://{DOCKER}:8080/v2/auth",service="{DOCKER}:8080"'
    assert answer.lines("WWW-Authenticate") == [expected + (f',scope="{scope}"' if scope else "")]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent",
    [
        (),
        ("nonsense,,=",),
        ('Basic realm="x"', 'Bearer realm="https://elsewhere.example/token",service="s",scope="aws"'),
        ('Basic realm="x", bearer realm=unquoted,scope="repository:other:pull,push"',),
    ],
)
def test_other_challenges_are_replaced(
    internet: Internet, house: House, path: str, sent: tuple[str, ...]
) -> None:
    """gcr.io sends none on repositories' paths."""
    refusal = error(401, "UNAUTHORIZED").having(*(("WWW-Authenticate", line) for line in sent))
    plain = path.partition("?")[0].replace("/v2/busybox", "/v2/library/busybox")
    internet.reply(HUB, "/v2/" if plain == "/v2" else plain, refusal)
    scheme, parameters = challenge(house.get(DOCKER, path))
    assert (scheme, parameters["realm"]) == ("Bearer", f"http://{DOCKER}/v2/auth")
    assert (parameters.get("scope"), parameters["service"]) == (PATHS[path], DOCKER)


def test_over_tls_the_realm_is_https(house: House) -> None:
    answer = house.connect(secure=True).ask("GET", f"{DOCKER}:8443", "/v2/").answer
    assert challenge(answer)[1]["realm"] == f"https://{DOCKER}:8443/v2/auth"


@pytest.mark.parametrize("name", ["invalid_token", "insufficient_scope", 'odd"\\,one'])
def test_the_upstreams_error_is_kept(internet: Internet, house: House, name: str) -> None:
    """Without it containerd tries five times, and podman does not widen its scope."""
    written = name.replace("\\", "\\\\").replace('"', '\\"')
    demand = ("WWW-Authenticate", f'Bearer realm="https://{AUTH}/token",error="{written}"')
    internet.reply(HUB, "/v2/team/image/manifests/1", error(401, "UNAUTHORIZED").having(demand))
    answer = house.get(DOCKER, "/v2/team/image/manifests/1", "Authorization: Bearer old")
    assert challenge(answer)[1]["error"] == name


def test_wrong_credentials_get_a_challenge(house: House) -> None:
    assert challenge(house.get(DOCKER, "/v2/", "Authorization: Bearer wrong"))[0] == "Bearer"
    login = f"Authorization: {basic(USER, 'wrong')}"
    assert challenge(house.get(DOCKER, "/v2/auth?scope=repository:busybox:pull", login))[0] == "Bearer"


def test_a_registry_for_everybody_has_no_challenge(house: House) -> None:
    answer = house.get(K8S, "/v2/")
    assert (answer.status, answer.json, answer["WWW-Authenticate"]) == (200, {}, None)


@pytest.mark.parametrize(
    ("demand", "realm"),
    [('Basic realm="Registry Realm"', "Registry Realm"), ("Basic", BASIC), ('Basic realm="a\x1bb"', "a?b")],
)
def test_a_basic_challenge_is_relayed_safely(
    internet: Internet, house: House, demand: str, realm: str
) -> None:
    """Clients stop at an empty realm; characters that no header may hold are replaced."""
    internet.reply("basic.example", "/v2/", error(401, "UNAUTHORIZED").having(("WWW-Authenticate", demand)))
    assert challenge(house.get(BASIC, "/v2/")) == ("Basic", {"realm": realm})


def test_an_upstream_with_basic_checks_passwords_and_has_no_tokens(internet: Internet, house: House) -> None:
    assert challenge(house.get(BASIC, "/v2/team/image/manifests/1"))[0] == "Basic"
    internet.seen.clear()
    for password, status in ((PASSWORD, 200), ("wrong", 401)):
        assert house.get(BASIC, "/v2/", f"Authorization: {basic(USER, password)}").status == status
    assert [seen.authorization for seen in internet.seen] == [basic(USER, PASSWORD), basic(USER, "wrong")]
    answer = house.get(BASIC, "/v2/auth?scope=repository:a:pull")
    assert answer.error == (404, "UNSUPPORTED")
    assert "Basic" in answer.message
