"""Authentication of users by password and by token."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from twisted.internet.defer import Deferred

from tests.fake_registry import basic
from tests.house import House
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet
from tests.stacks import logged

DOCKER, OWN = "docker.mirror.example", "mirror.example"
MANIFEST = "/v2/busybox/manifests/latest"
BOB, SECRET = "bob", "b0b's"
EVERYWHERE = [
    (DOCKER, "/v2/"),
    (DOCKER, "/v2"),
    (DOCKER, MANIFEST),
    (DOCKER, "/v2/_catalog"),
    (DOCKER, "/v2/BAD//manifests/x"),
    (OWN, "/v2/"),
    (OWN, MANIFEST),
    (OWN, f"/v2/quay.io/{PRIVATE}/manifests/latest"),
    (OWN, f"/quay.io/v2/{PRIVATE}/manifests/latest"),
    ("192.0.2.1", "/v2/"),
    (DOCKER, "/v2/%61uth"),
]
PAGES = [(DOCKER, "/"), (OWN, "/"), ("unknown.example", "/"), (OWN, "/nothing")]


@pytest.fixture
def internet() -> Internet:
    """The registries."""
    return Internet()


@pytest.fixture
def house(internet: Internet, tmp_path: Path) -> House:
    """The mirror, at which bob has a password."""
    return guarded(internet, tmp_path)


def guarded(internet: Internet, tmp_path: Path, **settings: Any) -> House:
    """A mirror with a file of names."""
    hashed = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{BOB}:{hashed}\n")
    access = {"htpasswd": str(tmp_path / "htpasswd"), "keys": str(tmp_path / "keys")}
    return House(internet, access=access, **settings)


def token(house: House, host: str = DOCKER, login: str | None = None) -> str:
    """A token of bob's."""
    given = house.get(host, "/v2/auth?service=x", f"Authorization: {login or basic(BOB, SECRET)}")
    assert given.status == 200
    assert given["Cache-Control"] == "private, no-store"
    return str(given.json["token"])


@pytest.mark.parametrize(("host", "path"), EVERYWHERE)
def test_registries(house: House, internet: Internet, host: str, path: str) -> None:
    """Nothing is told to nobody, whatever is wrong with the path; the challenge names our own realm."""
    for fields in ((), ("Authorization: Bearer anonymous",), ("Authorization: Negotiate x",)):
        answer = house.get(host, path, *fields)
        assert answer.error == (401, "UNAUTHORIZED")
        (challenge,) = answer.lines("WWW-Authenticate")
        assert challenge.startswith(f'Bearer realm="http://{host}/v2/auth",service="{host}"')
    assert internet.seen == []


@pytest.mark.parametrize(("host", "path"), PAGES)
def test_pages(house: House, host: str, path: str) -> None:
    """A browser is asked for a name, and goes on with it."""
    answer = house.get(host, path)
    assert answer.error == (401, "UNAUTHORIZED")
    assert answer["WWW-Authenticate"] == f'Basic realm="{host}"'
    with_name = house.get(host, path, f"Authorization: {basic(BOB, SECRET)}")
    assert with_name.status == (200 if path == "/" and host != "unknown.example" else 404)


def test_health_alone_is_for_everybody(house: House) -> None:
    """Only health needs no login, since load balancers have no password."""
    assert house.get("whatever", "/healthz").body == b"ok"


@pytest.mark.parametrize("host", [DOCKER, OWN, "127.0.0.1:8080"])
def test_a_client_that_logs_in(house: House, host: str) -> None:
    """Clients log in as at any registry, on each of the mirror's hosts."""
    for path in ("/v2/", MANIFEST):
        answer = house.pull(host, path, authorization=basic(BOB, SECRET))
        assert answer.status == 200
        assert "private" in str(answer["Cache-Control"])
    assert answer.body == BUSYBOX


def test_a_form(house: House) -> None:
    """The token service accepts forms as well, which docker tries first."""
    form = f"grant_type=password&username={BOB}&password=b0b%27s&service=x&client_id=docker&scope="
    given = house.post(DOCKER, "/v2/auth", form)
    assert given.status == 200
    assert given.json["access_token"] == given.json["token"]
    assert given.json["expires_in"] == 300
    assert house.get(DOCKER, MANIFEST, f"Authorization: Bearer {given.json['token']}").body == BUSYBOX


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ("", ()),
        ("", (f"Authorization: {basic(BOB, 'wrong')}",)),
        ("", (f"Authorization: {basic(USER, PASSWORD)}",)),
        ("", ("Authorization: Basic Ym9i",)),
        ("grant_type=password&username=bob&password=wrong", ()),
        ("grant_type=password", ()),
        ("grant_type=refresh_token&refresh_token=x", ()),
        ("username=bob&password=b0b%27s", ()),
    ],
)
def test_no_token(house: House, internet: Internet, form: str, fields: tuple[str, ...]) -> None:
    """A wrong password gets no token; an account of an upstream is not an account of the mirror."""
    answer = house.post(DOCKER, "/v2/auth", form, *fields) if form else house.get(DOCKER, "/v2/auth", *fields)
    assert answer.error == (401, "UNAUTHORIZED")
    assert answer["WWW-Authenticate"] == f'Basic realm="{DOCKER}"'
    assert internet.seen == []


def test_a_token_has_an_end(house: House) -> None:
    """After it the client is told that it is not valid, and takes another."""
    bearer = f"Authorization: Bearer {token(house)}"
    house.pass_time(299)
    assert house.get(DOCKER, MANIFEST, bearer).status == 200
    house.pass_time(1)
    answer = house.get(DOCKER, MANIFEST, bearer)
    assert answer.status == 401
    assert 'error="invalid_token"' in str(answer["WWW-Authenticate"])


@pytest.mark.parametrize("path", ["/v2/", MANIFEST, f"/v2/{PRIVATE}/manifests/latest"])
def test_a_name_and_a_password_with_each_request(house: House, path: str) -> None:
    """Will do, and go no further."""
    answer = house.get(DOCKER, path, f"Authorization: {basic(BOB, SECRET)}")
    assert answer.status == (403 if PRIVATE in path else 200)
    assert house.get(DOCKER, path, f"Authorization: {basic(BOB, 'wrong')}").status == 401


def test_nothing_travels(house: House, internet: Internet) -> None:
    """Neither the password nor the token reaches an upstream or the log."""
    with logged() as texts:
        bearer = token(house)
        house.get(DOCKER, MANIFEST, f"Authorization: Bearer {bearer}")
        house.get(OWN, "/v2/quay.io/team/image/manifests/1", f"Authorization: {basic(BOB, SECRET)}")
    login = basic(BOB, SECRET)
    assert internet.asked(HUB)
    assert internet.asked("quay.io")
    for seen in internet.seen:
        assert bearer not in str(seen.headers)
        assert login not in str(seen.headers)
    assert not [line for line in (*texts, *house.lines) if SECRET in line or bearer in line]


def test_the_mirror_asks_as_itself(internet: Internet, tmp_path: Path) -> None:
    """Upstreams are asked with the mirror's own account or anonymously, never with the client's."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    docker = {"username": USER, "password_file": str(password)}
    house = guarded(internet, tmp_path, upstreams={"docker": docker})
    bearer = f"Authorization: Bearer {token(house)}"
    assert house.get(DOCKER, f"/v2/{PRIVATE}/manifests/latest", bearer).body == BUSYBOX
    refused = house.get("quay.mirror.example", f"/v2/{PRIVATE}/manifests/latest", bearer)
    assert refused.error == (403, "DENIED")
    assert house.get(DOCKER, f"/v2/{PRIVATE}/manifests/latest").status == 401
    assert {seen.header("Authorization") for seen in internet.asked(AUTH)} == {basic(USER, PASSWORD)}


def test_both_are_asked_for(internet: Internet, tmp_path: Path) -> None:
    """A correct password does not help a client of a network that is not allowed."""
    house = guarded(internet, tmp_path, networks=["10.0.0.0/8"])
    login = f"Authorization: {basic(BOB, SECRET)}"
    for host, path in (*EVERYWHERE, *PAGES, (DOCKER, "/v2/auth")):
        answer = house.connect("192.168.1.1").ask("GET", host, path, login).answer
        assert answer.error == (403, "DENIED")
        near = house.connect("10.0.0.1").ask("GET", host, path, login).answer
        assert near.status != 401
        assert b"'networks'" not in near.body


def test_a_client_that_leaves(internet: Internet, tmp_path: Path) -> None:
    """While its password is looked at is not served any more; one that stays is."""
    waiting: list[Deferred[bool]] = []

    def later(_: Callable[[], bool]) -> Deferred[bool]:
        waiting.append(Deferred())
        return waiting[-1]

    house = guarded(internet, tmp_path, in_thread=later)
    login = f"Authorization: {basic(BOB, SECRET)}"
    leaving, staying = (house.connect().ask("GET", DOCKER, MANIFEST, login) for _ in range(2))
    leaving.leave()
    (comparison,) = waiting  # which both wait for
    comparison.callback(True)
    house.pass_time(0)
    assert staying.answer.body == BUSYBOX
    assert len(internet.asked(HUB)) == len(house.lines) + 1
    assert ["cut off" in line for line in house.lines] == [True, False]


def login(house: House, password: str, peer: str = "192.168.1.1", name: str = BOB) -> Any:
    """Return the answer to a login from that address."""
    fields = f"Authorization: {basic(name, password)}"
    return house.connect(peer).ask("GET", DOCKER, "/v2/", fields).answer


def test_guesses(house: House) -> None:
    """Failed logins are limited per network and name; verified users and other networks are served."""
    assert login(house, SECRET, "192.168.1.2").status == 200
    for peer in ("192.168.1.1", "192.168.1.2"):
        assert {login(house, f"guess {number}", peer).status for number in range(10)} == {401}
        refused = login(house, "guess 10", peer)
        assert (refused.error, refused["Retry-After"]) == ((429, "TOOMANYREQUESTS"), "60")
        assert "too many failed logins from your network; try again in 60 s" in refused.message
        form = house.connect(peer).ask("GET", DOCKER, "/v2/auth", f"Authorization: {basic(BOB, 'x')}").answer
        assert form.status == 429
    assert login(house, SECRET, "192.168.1.1").status == 200  # it was verified for another network
    assert login(house, SECRET, "192.168.1.3").status == 200
    assert login(house, "x", "192.168.1.3").status == 401


def test_a_network_that_floods(internet: Internet, tmp_path: Path) -> None:
    """A network with too many logins at once gets 429, and does not block other networks."""
    waiting: list[Deferred[bool]] = []

    def later(_: Callable[[], bool]) -> Deferred[bool]:
        waiting.append(Deferred())
        return waiting[-1]

    house = guarded(internet, tmp_path, in_thread=later)
    clients = [
        house.connect("192.168.1.1").ask("GET", DOCKER, "/v2/", f"Authorization: {basic(f'n{number}', 'x')}")
        for number in range(200)
    ]
    assert clients[-1].answer.error == (429, "TOOMANYREQUESTS")
    assert clients[-1].answer["Retry-After"] == "1"
    assert len(waiting) < 20
    other = house.connect("192.168.1.2").ask("GET", DOCKER, "/v2/", f"Authorization: {basic(BOB, SECRET)}")
    waiting[-1].callback(True)
    house.pass_time(0)
    assert other.answer.status == 200


def test_a_reload(house: House) -> None:
    """Forgets neither who was let in, nor how often a network was wrong."""
    assert login(house, SECRET).status == 200
    for number in range(10):
        login(house, f"guess {number}")
    house.serving.apply(house.serving.settings)
    assert login(house, "guess 10").status == 429
    assert login(house, SECRET).status == 200
