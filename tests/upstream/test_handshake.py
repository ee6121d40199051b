"""What an upstream's own ``/v2/`` demands."""

# mypy: allow-untyped-calls

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from dockmirror.oci.challenge import Challenge
from dockmirror.oci.errors import Unavailable
from dockmirror.upstream.token_relay import ChallengeCache
from tests.fakes import ENDLESS, SILENT, Reply
from tests.internet import AUTH, HUB, Internet
from tests.stacks import Outcome, client, now


@pytest.fixture
def internet() -> Internet:
    """Docker Hub and its token service."""
    return Internet()


@pytest.fixture
def clock() -> Clock:
    """The time that the handshake goes by."""
    return Clock()


@pytest.fixture
def handshake(internet: Internet, clock: Clock) -> ChallengeCache:
    """Docker Hub's."""
    return ChallengeCache(client(internet.agent, clock), f"https://{HUB}", clock)


def test_it_is_remembered_for_five_minutes(
    internet: Internet, clock: Clock, handshake: ChallengeCache
) -> None:
    """And asked for anew afterwards."""
    for seconds, asked in ((0, 1), (299, 1), (1, 2), (1, 2)):
        clock.advance(seconds)
        (challenge,) = now(handshake.challenges())
        assert challenge.get("realm") == f"https://{AUTH}/token"
        assert len(internet.seen) == asked


def test_many_wait_for_one_question(internet: Internet, handshake: ChallengeCache) -> None:
    """Also where one of them leaves meanwhile."""
    internet.reply(HUB, "/v2/", SILENT)
    waiting = [Outcome(handshake.challenges()) for _ in range(3)]
    waiting[0].work.cancel()
    internet.agent.flush()
    assert isinstance(waiting[0].error, CancelledError)
    assert len(internet.seen) == 1
    assert internet.abandoned == []


def test_what_fails_is_not_remembered(internet: Internet, handshake: ChallengeCache) -> None:
    """An upstream that was down a moment ago may be up again."""
    internet.reply(HUB, "/v2/", Reply(503), Reply(200, b"{}"))
    with pytest.raises(Unavailable):
        now(handshake.challenges())
    assert now(handshake.challenges()) == ()


@pytest.mark.parametrize("status", [200, 401])
def test_redirects_are_followed(internet: Internet, handshake: ChallengeCache, status: int) -> None:
    """A registry that has moved says there what it demands."""
    internet.reply(HUB, "/v2/", Reply(301, b"", (("Location", "https://moved.example/v2/"),)))
    demand = ("WWW-Authenticate", 'Bearer realm="https://moved.example/token"')
    internet.reply("moved.example", "/v2/", Reply(status, b"{}", (demand,)))
    challenges = now(handshake.challenges())
    assert [c.get("realm") for c in challenges] == ["https://moved.example/token"][: status == 401]


def test_a_challenge_on_a_200_is_none(internet: Internet, handshake: ChallengeCache) -> None:
    """Everybody was let in."""
    internet.reply(HUB, "/v2/", Reply(200, b"{}", (("WWW-Authenticate", "Basic"),)))
    assert now(handshake.challenges()) == ()


def test_a_401_without_a_challenge_still_demands_something(
    internet: Internet, handshake: ChallengeCache
) -> None:
    """Nobody was let in."""
    internet.reply(HUB, "/v2/", Reply(401))
    assert now(handshake.challenges()) == (Challenge("Bearer"),)
    assert now(handshake.token_service()) is None


def test_a_401_may_be_a_web_page(internet: Internet, handshake: ChallengeCache) -> None:
    """Its header is what counts; its body is not waited for."""
    demand = (("Content-Type", "text/html"), ("WWW-Authenticate", "Basic"))
    internet.reply(HUB, "/v2/", evolve(ENDLESS, status=401).having(*demand))
    assert now(handshake.challenges()) == (Challenge("Basic"),)
    internet.agent.flush()
    assert len(internet.abandoned) == 1


def test_a_web_page_is_no_registry(internet: Internet, handshake: ChallengeCache) -> None:
    """Whatever its status."""
    internet.reply(HUB, "/v2/", Reply(200, b"<html>", (("Content-Type", "text/html"),)))
    with pytest.raises(Unavailable, match="web page") as raised:
        now(handshake.challenges())
    assert raised.value.upstream_status == 200


def test_what_a_resource_demands_is_learnt(internet: Internet, handshake: ChallengeCache) -> None:
    """Where ``/v2/`` itself demands nothing; the newest is believed."""
    internet.reply(HUB, "/v2/", Reply(200, b"{}"))
    assert now(handshake.token_service()) is None
    bearers = [Challenge("Bearer", {"realm": f"https://{name}.example/"}) for name in "ab"]
    for bearer in bearers:
        handshake.learn([Challenge("Basic"), bearer])
        handshake.learn([])
        assert now(handshake.token_service()) == bearer
