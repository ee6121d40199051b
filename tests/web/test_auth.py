"""Authentication of users by password and by token, and the limits on failed logins."""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from mmap import mmap
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from dockmirror.oci.errors import TooManyRequests, Unauthorized, Unavailable
from dockmirror.system.networks import Network
from dockmirror.web.client_limits import (
    FAILED_LOGINS_SIZE,
    MAX_CONCURRENT,
    MAX_PER_NAME,
    MAX_PER_NETWORK,
    WINDOW,
    FailedLogins,
)
from tests.answering import watch
from tests.fake_registry import basic
from tests.house import Answer, House
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet
from tests.stacks import logged

DOCKER, OWN = "docker.mirror.example", "mirror.example"
MANIFEST = "/v2/busybox/manifests/latest"
BOB, SECRET = "bob", "b0b's"
LOGIN = f"Authorization: {basic(BOB, SECRET)}"
REGISTRY_PATHS = [
    (DOCKER, "/v2/"),
    (DOCKER, "/v2"),
    (DOCKER, MANIFEST),
    (DOCKER, "/v2/BAD//manifests/x"),
    (OWN, "/v2/"),
    (OWN, f"/v2/quay.io/{PRIVATE}/manifests/latest"),
    (OWN, f"/quay.io/v2/{PRIVATE}/manifests/latest"),
    ("192.0.2.1", "/v2/"),
    (DOCKER, "/v2/%61uth"),
]
PAGES = [(DOCKER, "/"), (OWN, "/"), ("unknown.example", "/"), (OWN, "/nothing")]


@pytest.fixture
def house(internet: Internet, tmp_path: Path) -> House:
    """The mirror, at which bob has a password."""
    return guarded(internet, tmp_path)


def guarded(internet: Internet, tmp_path: Path, **settings: Any) -> House:
    """Build a mirror with users."""
    hashed = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"{BOB}:{hashed}\n")
    access = {"htpasswd": str(tmp_path / "htpasswd"), "keys": str(tmp_path / "keys")}
    return House(internet, access=access, **settings)


def issue_token(house: House) -> str:
    """Return a token of bob's."""
    answer = house.get(DOCKER, "/v2/auth?service=x", LOGIN)
    assert (answer.status, answer["Cache-Control"]) == (200, "private, no-store")
    return str(answer.json["token"])


@pytest.mark.parametrize(("host", "path"), REGISTRY_PATHS)
def test_registry_clients_without_a_login_get_the_mirrors_own_challenge(
    house: House, internet: Internet, host: str, path: str
) -> None:
    for fields in ((), ("Authorization: Bearer anonymous",), ("Authorization: Negotiate x",)):
        answer = house.get(host, path, *fields)
        assert answer.error == (401, "UNAUTHORIZED")
        (challenge,) = answer.lines("WWW-Authenticate")
        assert challenge.startswith(f'Bearer realm="http://{host}/v2/auth",service="{host}"')
    assert internet.seen == []


@pytest.mark.parametrize(("host", "path"), PAGES)
def test_browsers_get_a_basic_challenge_and_may_log_in(house: House, host: str, path: str) -> None:
    """Health alone needs no login, since load balancers have no password."""
    answer = house.get(host, path)
    assert (answer.error, answer["WWW-Authenticate"]) == ((401, "UNAUTHORIZED"), f'Basic realm="{host}"')
    status = house.get(host, path, LOGIN).status
    assert status == (200 if path == "/" and host != "unknown.example" else 404)
    assert house.get(host, "/healthz").body == b"ok"


@pytest.mark.parametrize("host", [DOCKER, OWN, "127.0.0.1:8080"])
def test_clients_log_in_as_at_any_registry(house: House, host: str) -> None:
    for path in ("/v2/", MANIFEST):
        answer = house.pull(host, path, authorization=basic(BOB, SECRET))
        assert answer.status == 200
        assert "private" in str(answer["Cache-Control"])
    assert answer.body == BUSYBOX


def test_the_token_service_accepts_forms(house: House) -> None:
    """docker tries them first."""
    form = f"grant_type=password&username={BOB}&password=b0b%27s&service=x&client_id=docker&scope="
    answer = house.post(DOCKER, "/v2/auth", form)
    assert (answer.status, answer.json["expires_in"]) == (200, 300)
    assert answer.json["access_token"] == answer.json["token"]
    assert house.get(DOCKER, MANIFEST, f"Authorization: Bearer {answer.json['token']}").body == BUSYBOX


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
def test_no_token_is_issued(house: House, internet: Internet, form: str, fields: tuple[str, ...]) -> None:
    """An account of an upstream is no account of the mirror."""
    answer = house.post(DOCKER, "/v2/auth", form, *fields) if form else house.get(DOCKER, "/v2/auth", *fields)
    assert (answer.error, answer["WWW-Authenticate"]) == ((401, "UNAUTHORIZED"), f'Basic realm="{DOCKER}"')
    assert internet.seen == []


def test_an_expired_token_is_named_as_invalid(house: House) -> None:
    bearer = f"Authorization: Bearer {issue_token(house)}"
    house.pass_time(299)
    assert house.get(DOCKER, MANIFEST, bearer).status == 200
    house.pass_time(1)
    answer = house.get(DOCKER, MANIFEST, bearer)
    assert answer.status == 401
    assert 'error="invalid_token"' in str(answer["WWW-Authenticate"])


@pytest.mark.parametrize("path", ["/v2/", MANIFEST, f"/v2/{PRIVATE}/manifests/latest"])
def test_a_password_may_come_with_each_request(house: House, path: str) -> None:
    assert house.get(DOCKER, path, LOGIN).status == (403 if PRIVATE in path else 200)
    for wrong in (basic(BOB, "wrong"), "Basic no base64"):
        assert house.get(DOCKER, path, f"Authorization: {wrong}").status == 401


def test_no_password_or_token_reaches_an_upstream_or_the_log(house: House, internet: Internet) -> None:
    with logged() as texts:
        bearer = issue_token(house)
        house.get(DOCKER, MANIFEST, f"Authorization: Bearer {bearer}")
        house.get(OWN, "/v2/quay.io/team/image/manifests/1", LOGIN)
    assert internet.asked(HUB)
    assert internet.asked("quay.io")
    sent = [str(seen.headers) for seen in internet.seen]
    assert not [text for text in sent if bearer in text or basic(BOB, SECRET) in text]
    assert not [line for line in (*texts, *house.lines) if SECRET in line or bearer in line]


def test_upstreams_get_the_mirrors_account_or_none(internet: Internet, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    house = guarded(
        internet, tmp_path, upstreams={"docker": {"username": USER, "password_file": str(password)}}
    )
    bearer = f"Authorization: Bearer {issue_token(house)}"
    path = f"/v2/{PRIVATE}/manifests/latest"
    assert house.get(DOCKER, path, bearer).body == BUSYBOX
    assert house.get("quay.mirror.example", path, bearer).error == (403, "DENIED")
    assert house.get(DOCKER, path).status == 401
    assert {seen.header("Authorization") for seen in internet.asked(AUTH)} == {basic(USER, PASSWORD)}


def test_a_password_does_not_help_in_other_networks(internet: Internet, tmp_path: Path) -> None:
    house = guarded(internet, tmp_path, networks=["10.0.0.0/8"])
    for host, path in (*REGISTRY_PATHS, *PAGES, (DOCKER, "/v2/auth")):
        refused, allowed = (
            house.connect(peer).ask("GET", host, path, LOGIN).answer for peer in ("192.168.1.1", "10.0.0.1")
        )
        assert refused.error == (403, "DENIED")
        assert allowed.status != 401
        assert b"'networks'" not in allowed.body


class SlowComparisons(list[Deferred[bool]]):
    """Comparisons of passwords that the test ends."""

    def __call__(self, _: Callable[[], bool]) -> Deferred[bool]:
        self.append(Deferred())
        return self[-1]


def test_clients_that_send_the_same_password_share_a_comparison(internet: Internet, tmp_path: Path) -> None:
    """One that leaves meanwhile is not served any more; one that stays is."""
    comparisons = SlowComparisons()
    house = guarded(internet, tmp_path, in_thread=comparisons)
    leaving, staying = (house.connect().ask("GET", DOCKER, MANIFEST, LOGIN) for _ in range(2))
    leaving.leave()
    (comparison,) = comparisons
    comparison.callback(True)
    house.pass_time(0)
    assert staying.answer.body == BUSYBOX
    assert len(internet.asked(HUB)) == len(house.lines) + 1
    assert ["cut off" in line for line in house.lines] == [True, False]


def test_too_many_logins_at_once_block_no_other_network(internet: Internet, tmp_path: Path) -> None:
    comparisons = SlowComparisons()
    house = guarded(internet, tmp_path, in_thread=comparisons)
    logins = [f"Authorization: {basic(f'n{number}', 'x')}" for number in range(200)]
    clients = [house.connect("192.168.1.1").ask("GET", DOCKER, "/v2/", each) for each in logins]
    answer = clients[-1].answer
    assert (answer.error, answer["Retry-After"]) == ((429, "TOOMANYREQUESTS"), "1")
    assert len(comparisons) < 20
    other = house.connect("192.168.1.2").ask("GET", DOCKER, "/v2/", LOGIN)
    comparisons[-1].callback(True)
    house.pass_time(0)
    assert other.answer.status == 200


def log_in(house: House, password: str, peer: str = "192.168.1.1", path: str = "/v2/") -> Answer:
    """Return the answer to bob's login from an address."""
    return house.connect(peer).ask("GET", DOCKER, path, f"Authorization: {basic(BOB, password)}").answer


def test_guesses_are_limited_and_verified_users_are_served(house: House) -> None:
    assert log_in(house, SECRET, "192.168.1.2").status == 200
    for peer in ("192.168.1.1", "192.168.1.2"):
        assert {log_in(house, f"guess {number}", peer).status for number in range(10)} == {401}
        refused = log_in(house, "guess 10", peer)
        assert (refused.error, refused["Retry-After"]) == ((429, "TOOMANYREQUESTS"), "60")
        assert "too many failed logins from your network; try again in 60 s" in refused.message
        assert log_in(house, "x", peer, "/v2/auth").status == 429
    assert log_in(house, SECRET, "192.168.1.1").status == 200  # it was verified for another network
    assert log_in(house, SECRET, "192.168.1.3").status == 200
    assert log_in(house, "x", "192.168.1.3").status == 401


def test_a_reload_keeps_verified_users_and_failed_logins(house: House) -> None:
    assert log_in(house, SECRET).status == 200
    for number in range(10):
        log_in(house, f"guess {number}")
    house.serving.apply(house.serving.settings)
    assert (log_in(house, "guess 10").status, log_in(house, SECRET).status) == (429, 200)


HERE, THERE = ip_network("192.0.2.1/32"), ip_network("2001:db8::/64")


class Attempts:
    """Logins at two processes that share their memory; the test decides each outcome."""

    def __init__(self) -> None:
        self.clock = Clock()
        memory = memoryview(mmap(-1, FAILED_LOGINS_SIZE))
        self.processes = [FailedLogins(memory, self.clock) for _ in range(2)]

    def __call__(
        self, outcome: object = None, name: str = "alice", network: Network | None = HERE, process: int = 0
    ) -> object:
        """Return the outcome of one, or the error of the limit."""
        waiting: Deferred[str] = Deferred()
        result = watch(self.processes[process].attempt(network, name.encode(), lambda: waiting))
        if not result and isinstance(outcome, Exception):
            waiting.errback(outcome)
        elif not result:
            waiting.callback(str(outcome))
        return result[0]

    def fail(self, times: int, name: str = "alice", network: Network | None = HERE) -> None:
        for _ in range(times):
            assert isinstance(self(Unauthorized(), name, network), Unauthorized)


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


def retry_after(outcome: object) -> str | None:
    """Return the seconds until another login may be tried."""
    assert isinstance(outcome, TooManyRequests)
    return outcome.retry_after


def test_after_wrong_passwords_of_a_name_the_right_one_waits_for_the_next_window(attempts: Attempts) -> None:
    attempts.fail(MAX_PER_NAME - 1)
    attempts.clock.advance(20)
    attempts.fail(1)
    assert retry_after(attempts("alice")) == retry_after(attempts("alice", process=1)) == "40"
    attempts.clock.advance(39.5)
    assert retry_after(attempts("alice")) == "1"
    attempts.clock.advance(0.5)
    attempts.fail(MAX_PER_NAME)
    assert retry_after(attempts("alice")) == f"{WINDOW:g}"


def test_other_names_and_networks_are_not_affected(attempts: Attempts) -> None:
    attempts.fail(MAX_PER_NAME)
    assert attempts("bob", name="bob") == "bob"
    for other in (THERE, None):
        assert attempts("alice", network=other) == "alice"
    attempts.fail(MAX_PER_NAME, network=None)
    assert retry_after(attempts("alice", network=None))


def test_one_password_for_many_names_is_limited_as_well(attempts: Attempts) -> None:
    for number in range(MAX_PER_NETWORK):
        attempts.fail(1, name=f"name {number}")
    assert retry_after(attempts("bob", name="bob"))
    assert attempts("bob", name="bob", network=THERE) == "bob"


def test_logins_that_succeed_or_could_not_be_checked_do_not_count(attempts: Attempts) -> None:
    """Nor does one whose client leaves during the check."""
    for _ in range(2 * MAX_PER_NETWORK):
        assert attempts("alice") == "alice"
        assert isinstance(attempts(Unavailable()), Unavailable)
    for _ in range(MAX_PER_NAME + 1):
        attempt = Deferred.fromCoroutine(attempts.processes[0].attempt(HERE, b"alice", lambda: Deferred()))
        attempt.addErrback(lambda _: None)
        attempt.cancel()
    attempts.fail(MAX_PER_NAME)


def test_concurrent_logins_count_as_failed_until_they_succeed(attempts: Attempts) -> None:
    waiting: Deferred[str] = Deferred()
    (process, _) = attempts.processes
    of_one = [watch(process.attempt(HERE, b"alice", lambda: waiting)) for _ in range(MAX_PER_NAME + 1)]
    assert [len(each) for each in of_one] == [0] * MAX_PER_NAME + [1]
    assert retry_after(of_one[-1][0])
    of_many = [watch(process.attempt(HERE, b"%d" % n, lambda: waiting)) for n in range(MAX_CONCURRENT)]
    assert sum(not each for each in of_many) == MAX_CONCURRENT - MAX_PER_NAME
    assert retry_after(of_many[-1][0]) == "1"
    assert attempts("carol", name="carol", network=THERE) == "carol"
    waiting.callback("right")
    assert attempts("alice") == "alice"
