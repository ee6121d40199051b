"""A registry asked with tokens of the mirror's own, anybody's or those of an account."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from dockmirror.middleware.token_registry import RENEWAL, FixedAccount, TokenRegistry
from dockmirror.oci.errors import Denied, Unauthorized, Unavailable
from dockmirror.oci.token import Credentials, Login
from tests.accounts import Changing
from tests.fake_registry import Passwords, Registry, error
from tests.fakes import SILENT, Reply
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet
from tests.stacks import Outcome, asked, bytes_of, logged, now, upstream

PATH = "/v2/library/busybox/manifests/latest"
MANIFEST = asked(PATH)
ALICES = asked(f"/v2/{PRIVATE}/manifests/latest")
ACCOUNT = Credentials.basic(USER, PASSWORD)
ALICE = FixedAccount(Login(ACCOUNT))
TOKEN = b'{"token":"late","expires_in":300}'


@pytest.fixture
def internet() -> Internet:
    return Internet()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(internet: Internet, clock: Clock) -> TokenRegistry:
    return TokenRegistry(upstream(internet.agent, clock), clock)


def test_a_challenge_is_answered_with_an_anonymous_token(internet: Internet, registry: TokenRegistry) -> None:
    """Its scope is to pull from that repository."""
    assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
    (seen,) = internet.asked(AUTH)
    assert seen.authorization is None
    assert seen.query == (("service", "registry.docker.io"), ("scope", "repository:library/busybox:pull"))


def test_a_token_is_kept_for_nine_tenths_of_its_life(
    internet: Internet, registry: TokenRegistry, clock: Clock
) -> None:
    """It is sent at once, without a second request; one that was not used lately is replaced."""
    for seconds, tokens, sent in ((0, 1, 2), (209, 1, 1), (61, 2, 2), (1, 2, 1)):
        clock.advance(seconds)
        before = len(internet.asked(HUB))
        now(registry.fetch(MANIFEST))
        manifests = [seen for seen in internet.asked(HUB)[before:] if "manifests" in seen.path]
        assert (len(internet.asked(AUTH)), len(manifests)) == (tokens, sent)


def test_a_token_in_use_is_renewed_behind(internet: Internet, registry: TokenRegistry, clock: Clock) -> None:
    """No request waits for it, nor is challenged, however long the tokens are used."""
    now(registry.fetch(MANIFEST))
    for _ in range(60):
        clock.advance(60)
        before = len(internet.asked(HUB))
        assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
        assert len([seen for seen in internet.asked(HUB)[before:] if "manifests" in seen.path]) == 1
    assert len(internet.asked(AUTH)) <= 1 + 3600 / (300 * RENEWAL)


def test_a_failed_renewal_is_not_repeated(internet: Internet, registry: TokenRegistry, clock: Clock) -> None:
    """The token is used to its end."""
    now(registry.fetch(MANIFEST))
    internet.reply(AUTH, "/token", Reply(503, b"down"))
    clock.advance(300 * RENEWAL)
    with logged() as lines:
        for _ in range(3):
            assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
            clock.advance(1)
    assert len(internet.asked(AUTH)) == 2
    assert len(lines) == 1
    assert "repository:library/busybox:pull was not renewed" in lines[0]


def test_a_request_that_joins_a_failed_renewal_is_challenged(
    internet: Internet, registry: TokenRegistry, clock: Clock
) -> None:
    """With the upstream's challenge, which the renewal had none of."""
    now(registry.fetch(MANIFEST))
    internet.reply(AUTH, "/token", Reply(401, told=False, end="stalled"))
    clock.advance(300 * RENEWAL)
    now(registry.fetch(MANIFEST))
    internet.auth.revoke()
    joined = Outcome(registry.fetch(MANIFEST))
    internet.go_on(b"")
    assert isinstance(joined.error, Unauthorized)
    assert joined.error.challenges
    assert len(internet.asked(AUTH)) == 2


def test_concurrent_requests_share_one_token(internet: Internet, registry: TokenRegistry) -> None:
    """A cancelled request does not cancel the others."""
    internet.reply(AUTH, "/token", SILENT)
    waiting = [Outcome(registry.fetch(MANIFEST)) for _ in range(3)]
    assert len(internet.asked(AUTH)) == 1
    waiting[0].work.cancel()
    internet.agent.flush()
    assert isinstance(waiting[0].error, CancelledError)
    assert internet.abandoned == []


def test_a_refused_token_is_replaced(internet: Internet, registry: TokenRegistry) -> None:
    now(registry.fetch(MANIFEST))
    internet.auth.revoke()
    assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
    assert len(internet.asked(AUTH)) == 2
    now(registry.fetch(MANIFEST))
    assert len(internet.asked(AUTH)) == 2


def test_a_late_refusal_does_not_drop_a_newer_token(internet: Internet, registry: TokenRegistry) -> None:
    """The request goes on with the newer one."""
    now(registry.fetch(MANIFEST))
    demand = Reply(401, b"", (("WWW-Authenticate", internet.auth.challenge(None)),), told=False)
    internet.reply(HUB, PATH, evolve(demand, end="stalled"), demand, Reply(200, BUSYBOX))
    late = Outcome(registry.fetch(MANIFEST))
    now(registry.fetch(MANIFEST))
    assert not late
    internet.go_on(b"")
    assert bytes_of(late.get().body) == BUSYBOX
    assert len(internet.asked(AUTH)) == 2


def test_clients_credentials_are_dropped(internet: Internet, registry: TokenRegistry) -> None:
    """Neither the registry nor its token service gets them."""
    now(registry.fetch(evolve(MANIFEST, credentials=ACCOUNT)))
    with pytest.raises(Unauthorized):
        now(registry.fetch(asked("/v2/", credentials=ACCOUNT)))
    assert not any(ACCOUNT.header in str(seen) for seen in internet.seen)


def test_a_private_image_stays_private(internet: Internet, registry: TokenRegistry) -> None:
    """One token is tried, and the refusal is passed on."""
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(asked(f"/v2/{PRIVATE}/manifests/latest")))
    assert raised.value.upstream_status == 401
    assert len(internet.asked(AUTH)) == 1


@pytest.mark.parametrize("refusal", [error(401, "UNAUTHORIZED"), error(403, "DENIED")])
def test_a_refusal_of_the_token_service_is_a_challenge(
    internet: Internet, registry: TokenRegistry, refusal: Reply
) -> None:
    """The client should log in (ghcr.io refuses the token itself)."""
    internet.reply(AUTH, "/token", refusal)
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(MANIFEST))
    assert [challenge.scheme for challenge in raised.value.challenges] == ["Bearer"]


@pytest.mark.parametrize("reply", [Reply(503), Reply(200, b"<html>"), Reply(307)])
def test_a_failure_of_the_token_service_is_no_refusal(
    internet: Internet, registry: TokenRegistry, reply: Reply
) -> None:
    """The upstream counts as unavailable."""
    internet.reply(AUTH, "/token", reply, Reply(200, TOKEN))
    with pytest.raises(Unavailable):
        now(registry.fetch(MANIFEST))


def test_an_open_registry_is_asked_without_tokens(internet: Internet, clock: Clock) -> None:
    registry = TokenRegistry(upstream(internet.agent, clock, "https://registry.k8s.io"), clock)
    now(registry.fetch(asked("/v2/team/image/manifests/1")))
    assert [(seen.path, seen.authorization) for seen in internet.seen] == [
        ("/v2/team/image/manifests/1", None)
    ]


def test_a_basic_registry_is_not_asked_for_tokens(internet: Internet, clock: Clock) -> None:
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    registry = TokenRegistry(upstream(internet.agent, clock, "https://basic.example"), clock)
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(MANIFEST))
    assert [challenge.scheme for challenge in raised.value.challenges] == ["Basic"]
    assert len(internet.seen) == 1


def test_other_errors_are_passed_on(internet: Internet, registry: TokenRegistry) -> None:
    internet.reply(HUB, PATH, Reply(500))
    with pytest.raises(Unavailable):
        now(registry.fetch(MANIFEST))
    assert internet.asked(AUTH) == []


@pytest.fixture
def alices(internet: Internet, clock: Clock) -> TokenRegistry:
    return TokenRegistry(upstream(internet.agent, clock), clock, ALICE)


def test_an_account_can_pull_private_images(internet: Internet, alices: TokenRegistry) -> None:
    """The password goes to the token service alone, and the token is kept."""
    for _ in range(2):
        assert bytes_of(now(alices.fetch(ALICES)).body) == BUSYBOX
    (seen,) = internet.asked(AUTH)
    assert seen.authorization == ACCOUNT.header
    assert ("scope", f"repository:{PRIVATE}:pull") in seen.query
    assert [seen.authorization for seen in internet.asked(HUB) if "manifests" in seen.path] == [
        None,
        "Bearer t0ken-0-user",
        "Bearer t0ken-0-user",
    ]


def test_an_untrusted_realm_gets_no_password(internet: Internet, clock: Clock) -> None:
    """The message names the setting."""
    registry = TokenRegistry(upstream(internet.agent, clock, realms=()), clock, ALICE)
    with pytest.raises(Denied, match="'realms'"):
        now(registry.fetch(ALICES))
    assert internet.asked(AUTH) == []


def test_a_refused_account_is_reported(internet: Internet, clock: Clock) -> None:
    """Nothing is asked anonymously instead."""
    wrong, reports = Credentials.basic(USER, "not-this-one"), []
    registry = TokenRegistry(
        upstream(internet.agent, clock), clock, FixedAccount(Login(wrong)),
        lambda scope, is_first: reports.append((str(scope), is_first)),
    )  # fmt: skip
    with logged() as lines, pytest.raises(Unauthorized):
        now(registry.fetch(MANIFEST))
    assert reports == [("repository:library/busybox:pull", True)]
    assert not any("not-this-one" in line or wrong.header in line for line in lines)
    assert [seen.authorization for seen in internet.asked(AUTH)] == [wrong.header]


@pytest.fixture
def basic(internet: Internet) -> Registry:
    internet.servers["basic.example"] = registry = Registry(Passwords({USER: PASSWORD}))
    registry.push("library/busybox", "latest", BUSYBOX)
    return registry


def test_a_basic_registry_gets_the_password(internet: Internet, basic: Registry, clock: Clock) -> None:
    """After its first challenge; from then on at once."""
    registry = TokenRegistry(upstream(internet.agent, clock, "https://basic.example"), clock, ALICE)
    for _ in range(2):
        assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
    assert [seen.authorization for seen in internet.seen] == [None, ACCOUNT.header, ACCOUNT.header]


@pytest.mark.parametrize("host", [HUB, "basic.example"])
def test_a_wrong_password_is_not_repeated(
    internet: Internet, basic: Registry, clock: Clock, host: str
) -> None:
    """It is sent again after a minute, then after two, so that the account is not locked."""
    wrong = Credentials.basic(USER, "wrong")
    account = FixedAccount(Login(wrong))
    registry = TokenRegistry(upstream(internet.agent, clock, f"https://{host}"), clock, account)
    for seconds, sent in ((0, 1), (59, 0), (1, 1), (119, 0), (1, 1)):
        clock.advance(seconds)
        internet.seen.clear()
        with pytest.raises(Unauthorized):
            now(registry.fetch(MANIFEST))
        assert [seen.authorization for seen in internet.seen].count(wrong.header) == sent


def test_other_hosts_get_no_password(internet: Internet, basic: Registry, clock: Clock) -> None:
    """Neither by a redirect nor by a challenge."""
    path = basic.add("library/busybox", b"layer")
    moved = Reply(307, b"", (("Location", "https://elsewhere.example/layer"),))
    internet.servers["elsewhere.example"] = Registry(Passwords({USER: PASSWORD}))
    internet.reply("basic.example", path, Reply(401, b"", (("WWW-Authenticate", "Basic"),)), moved, moved)
    registry = TokenRegistry(upstream(internet.agent, clock, "https://basic.example"), clock, ALICE)
    with pytest.raises(Unavailable):
        now(registry.fetch(asked(path)))
    assert internet.asked("elsewhere.example")
    assert not any(seen.authorization for seen in internet.asked("elsewhere.example"))


EXPIRED = Login(Credentials.basic(USER, "expired"))


def test_a_refused_login_is_replaced(internet: Internet, clock: Clock) -> None:
    """If the account has a newer one; the token service is asked once more."""
    account = Changing(EXPIRED, Login(ACCOUNT))
    registry = TokenRegistry(upstream(internet.agent, clock), clock, account)
    assert bytes_of(now(registry.fetch(ALICES)).body) == BUSYBOX
    assert [bool(seen.authorization == ACCOUNT.header) for seen in internet.asked(AUTH)] == [False, True]


def test_an_expired_password_is_replaced(internet: Internet, basic: Registry, clock: Clock) -> None:
    """Both one that was kept for the repository and one that is sent for the first time."""
    account = Changing(
        Login(ACCOUNT), Login(Credentials.basic(USER, "n3w")), Login(Credentials.basic("c", "d"))
    )
    registry = TokenRegistry(upstream(internet.agent, clock, "https://basic.example"), clock, account)
    now(registry.fetch(MANIFEST))
    basic.door = Passwords({USER: "n3w"})
    assert bytes_of(now(registry.fetch(MANIFEST)).body) == BUSYBOX
    basic.push("library/other", "latest")
    basic.door = Passwords({"c": "d"})
    now(registry.fetch(asked("/v2/library/other/manifests/latest")))
    assert account.asked == 5


def test_an_unavailable_account_is_no_refusal(internet: Internet, clock: Clock) -> None:

    class Silent(Changing):
        async def login(self) -> Login:
            raise Unavailable("no login")

    registry = TokenRegistry(upstream(internet.agent, clock), clock, Silent())
    for _ in range(2):
        with pytest.raises(Unavailable, match="no login"):
            now(registry.fetch(ALICES))
    assert internet.asked(AUTH) == []


def test_an_identity_token_goes_to_the_token_service(
    internet: Internet, basic: Registry, clock: Clock
) -> None:
    """In a form, and to no registry."""
    account = FixedAccount(Login(None, "r3fresh"))
    internet.reply(AUTH, "/token", Reply(200, b'{"access_token":"t"}'))
    with pytest.raises(Unauthorized):
        now(TokenRegistry(upstream(internet.agent, clock), clock, account).fetch(MANIFEST))
    (seen,) = internet.asked(AUTH)
    assert (seen.method, seen.authorization) == ("POST", None)
    assert {("grant_type", "refresh_token"), ("refresh_token", "r3fresh")} <= set(seen.form)
    registry = TokenRegistry(upstream(internet.agent, clock, "https://basic.example"), clock, account)
    with pytest.raises(Unauthorized):
        now(registry.fetch(MANIFEST))
    assert [seen.authorization for seen in internet.asked("basic.example")] == [None]
