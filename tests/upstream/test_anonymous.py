"""A registry asked with anonymous tokens of the mirror's own."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import IRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import Unauthorized, Unavailable
from dockmirror.oci.token import TokenRequest
from dockmirror.upstream.anonymous import Anonymous
from tests.fake_registry import Passwords, Registry, error
from tests.fakes import SILENT, Reply
from tests.internet import AUTH, BUSYBOX, HUB, PASSWORD, PRIVATE, USER, Internet
from tests.stacks import Outcome, asked, bytes_of, now, upstream

PATH = "/v2/library/busybox/manifests/latest"
MANIFEST = asked(PATH)
TOKEN = b'{"token":"late","expires_in":300}'


@pytest.fixture
def internet() -> Internet:
    """Docker Hub, which demands tokens."""
    return Internet()


@pytest.fixture
def clock() -> Clock:
    """The time by which tokens end."""
    return Clock()


@pytest.fixture
def registry(internet: Internet, clock: Clock) -> Anonymous:
    """Docker Hub, asked anonymously."""
    return Anonymous(upstream(internet.agent, clock), clock)


def test_it_is_a_registry(registry: Anonymous) -> None:
    """In front of another one."""
    assert verifyObject(IRegistry, registry)


def test_a_challenge_is_answered(internet: Internet, registry: Anonymous) -> None:
    """With a token that anybody is given, for pulling from that repository and for nothing else."""
    assert bytes_of(now(registry.fetch(MANIFEST)).content) == BUSYBOX
    (seen,) = internet.asked(AUTH)
    assert seen.authorization is None
    assert seen.query == (("service", "registry.docker.io"), ("scope", "repository:library/busybox:pull"))


def test_a_token_is_kept_for_nine_tenths_of_its_life(
    internet: Internet, registry: Anonymous, clock: Clock
) -> None:
    """So that none ends on its way."""
    for seconds, tokens in ((0, 1), (269, 1), (1, 2), (1, 2)):
        clock.advance(seconds)
        now(registry.fetch(MANIFEST))
        assert len(internet.asked(AUTH)) == tokens


def test_a_kept_token_costs_no_second_trip(internet: Internet, registry: Anonymous) -> None:
    """It is sent along at once."""
    now(registry.fetch(MANIFEST))
    before = len(internet.seen)
    now(registry.fetch(MANIFEST))
    assert [seen.authorization for seen in internet.seen[before:]] == ["Bearer t0ken-0-anonymous"]


def test_many_wait_for_one_token(internet: Internet, registry: Anonymous) -> None:
    """And one of them who leaves takes it from nobody."""
    internet.reply(AUTH, "/token", SILENT)
    waiting = [Outcome(registry.fetch(MANIFEST)) for _ in range(3)]
    assert len(internet.asked(AUTH)) == 1
    waiting[0].work.cancel()
    internet.agent.flush()
    assert isinstance(waiting[0].error, CancelledError)
    assert internet.abandoned == []


def test_a_token_that_is_refused_is_replaced(internet: Internet, registry: Anonymous) -> None:
    """An upstream may end it before its time."""
    now(registry.fetch(MANIFEST))
    internet.auth.revoke()
    assert bytes_of(now(registry.fetch(MANIFEST)).content) == BUSYBOX
    assert len(internet.asked(AUTH)) == 2
    now(registry.fetch(MANIFEST))
    assert len(internet.asked(AUTH)) == 2


def test_a_refusal_that_comes_late_ends_no_newer_token(internet: Internet, registry: Anonymous) -> None:
    """Whose own token was replaced meanwhile goes on with the new one."""
    now(registry.fetch(MANIFEST))
    demand = Reply(401, b"", (("WWW-Authenticate", internet.auth.challenge(None)),), told=False)
    internet.reply(HUB, PATH, evolve(demand, end="stalled"), demand, Reply(200, BUSYBOX))
    late = Outcome(registry.fetch(MANIFEST))
    now(registry.fetch(MANIFEST))
    assert not late
    internet.go_on(b"")
    assert bytes_of(late.get().content) == BUSYBOX
    assert len(internet.asked(AUTH)) == 2


def test_a_clients_credentials_go_no_further(internet: Internet, registry: Anonymous) -> None:
    """Neither to the registry nor to its token service."""
    credentials = Credentials.basic(USER, PASSWORD)
    for path in (PATH, "/v2/library/busybox/tags/list"):
        now(registry.fetch(asked(path, credentials=credentials)))
    with pytest.raises(Unauthorized):
        now(registry.fetch(asked("/v2/", credentials=credentials)))
    assert not any(credentials.header in str(seen) for seen in internet.seen)


def test_what_is_private_stays_so(internet: Internet, registry: Anonymous) -> None:
    """A token that does not help is asked for once, and the refusal passed on."""
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(asked(f"/v2/{PRIVATE}/manifests/latest")))
    assert raised.value.upstream_status == 401
    assert len(internet.asked(AUTH)) == 1


@pytest.mark.parametrize("refusal", [error(401, "UNAUTHORIZED"), error(403, "DENIED")])
def test_a_token_service_that_refuses(internet: Internet, registry: Anonymous, refusal: Reply) -> None:
    """Means what the registry said: log in (ghcr.io refuses the token itself)."""
    internet.reply(AUTH, "/token", refusal)
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(MANIFEST))
    assert [challenge.scheme for challenge in raised.value.challenges] == ["Bearer"]


@pytest.mark.parametrize("reply", [Reply(503), Reply(200, b"<html>"), Reply(307)])
def test_a_token_service_that_fails(internet: Internet, registry: Anonymous, reply: Reply) -> None:
    """Is no refusal."""
    internet.reply(AUTH, "/token", reply, Reply(200, TOKEN))
    with pytest.raises(Unavailable):
        now(registry.fetch(MANIFEST))


def test_a_registry_for_everybody_is_just_asked(internet: Internet, clock: Clock) -> None:
    """Without tokens, and without asking what it demands."""
    registry = Anonymous(upstream(internet.agent, clock, "https://registry.k8s.io"), clock)
    now(registry.fetch(asked("/v2/team/image/manifests/1")))
    assert [(seen.path, seen.authorization) for seen in internet.seen] == [
        ("/v2/team/image/manifests/1", None)
    ]


def test_a_registry_with_passwords_is_not_asked_for_tokens(internet: Internet, clock: Clock) -> None:
    """Nobody is let in there without one."""
    internet.servers["basic.example"] = Registry(Passwords({USER: PASSWORD}))
    registry = Anonymous(upstream(internet.agent, clock, "https://basic.example"), clock)
    with pytest.raises(Unauthorized) as raised:
        now(registry.fetch(MANIFEST))
    assert [challenge.scheme for challenge in raised.value.challenges] == ["Basic"]
    assert len(internet.seen) == 1


def test_other_refusals_pass(internet: Internet, registry: Anonymous) -> None:
    """They are no matter of tokens."""
    internet.reply(HUB, PATH, Reply(500))
    with pytest.raises(Unavailable):
        now(registry.fetch(MANIFEST))
    assert internet.asked(AUTH) == []


def test_requests_for_tokens_pass(registry: Anonymous) -> None:
    """To the registry's own service."""
    answer = now(registry.token(TokenRequest.parse([("scope", "repository:library/busybox:pull")])))
    assert b"t0ken-0-anonymous" in bytes_of(answer.content)
