"""``/v2/`` and tokens, answered from the cache."""

from __future__ import annotations

import json

import pytest

from dockmirror.oci.errors import Challenge, Denied, RegistryError, TimedOut, Unauthorized, Unreachable
from dockmirror.oci.token import MARKER, Credentials, TokenRequest
from dockmirror.pullthrough.pull_through import MAX_AGE, REFRESH_AFTER

from ..answering import now, watch
from .mirrors import CONFIG, DAY, LAYER, NAME, PATIENCE, TAG, Mirror, body, header
from .origin import CHALLENGE, Origin

SCOPE = f"repository:{NAME}:pull"


@pytest.fixture
def warm(origin: Origin, mirror: Mirror) -> Mirror:
    """A mirror through which a public image was pulled."""
    origin.shelf(NAME).publish(CONFIG, LAYER)
    mirror.docker(NAME)
    mirror.docker(NAME)
    forget(origin)
    return mirror


def forget(origin: Origin) -> None:
    origin.take()
    origin.token_requests.clear()


def challenged(mirror: Mirror) -> tuple[Challenge, ...]:
    """Return the challenges of a ping."""
    try:
        assert body(mirror.ask("")) == b"{}"
    except Unauthorized as error:
        return error.challenges
    return ()


def test_a_warm_pull_asks_nobody(origin: Origin, warm: Mirror) -> None:
    """Ping, token, manifest and blobs; also after a restart."""
    for mirror in (warm, warm.restarted()):
        mirror.docker(NAME)
        assert (origin.take(), origin.token_requests) == ([], [])


@pytest.mark.parametrize("open_to_all", [False, True])
def test_what_the_upstream_demands_is_known(origin: Origin, mirror: Mirror, open_to_all: bool) -> None:
    """Asked for once, for many who ask at once, and kept over a restart."""
    origin.open = open_to_all
    origin.held_up = True
    waiting = [mirror.later("") for _ in range(3)]
    origin.go_on()
    assert len({type(outcome) for (outcome,) in waiting}) == 1
    demanded = () if open_to_all else (CHALLENGE,)
    assert challenged(mirror) == challenged(mirror.restarted()) == demanded
    assert origin.take() == ["nobody: GET "]


def test_the_challenge_is_refreshed_in_the_background(origin: Origin, warm: Mirror) -> None:
    warm.clock.advance(REFRESH_AFTER)
    origin.held_up = True
    origin.open = True
    assert challenged(warm) == challenged(warm) == (CHALLENGE,)
    origin.go_on()
    assert origin.take() == ["nobody: GET "]
    assert challenged(warm) == challenged(warm.restarted()) == ()


@pytest.mark.parametrize("error", [Unreachable(), TimedOut(), RegistryError(status=503), Denied()])
def test_the_challenge_is_served_during_an_outage(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    origin.trouble = error
    for age in (REFRESH_AFTER, DAY, MAX_AGE - DAY - REFRESH_AFTER - 1):
        warm.clock.advance(age)
        assert challenged(warm) == challenged(warm.restarted()) == (CHALLENGE,)
    if error.status != 403:
        warm.clock.advance(30 * DAY)
        assert challenged(warm) == (CHALLENGE,)


def test_a_failing_v2_is_not_asked_again(origin: Origin, warm: Mirror) -> None:
    warm.clock.advance(REFRESH_AFTER)
    origin.trouble = RegistryError(status=500)
    for _ in range(5):
        challenged(warm)
    assert origin.take() == ["nobody: GET "]


def test_what_is_very_old_is_asked_for_first(origin: Origin, warm: Mirror) -> None:
    """A mirror that was not used for a month answers what is so now; and so where the clock was ahead."""
    origin.open = True
    for change in (MAX_AGE, -10.0):
        warm.clock.rightNow += change
        assert challenged(warm.restarted()) == ()
        assert origin.take() == ["nobody: GET "]


def test_an_upstream_that_never_answered_is_no_dead_end(origin: Origin, mirror: Mirror) -> None:
    """Docker can pull in an outage an image that containerd, which never pings, has pulled."""
    manifest = origin.shelf(NAME).publish(CONFIG, LAYER)
    mirror.pull(NAME)
    origin.trouble = Unreachable()
    assert mirror.docker(NAME) == [manifest, CONFIG, LAYER]
    assert [challenge.scheme for challenge in challenged(mirror)] == ["Bearer"]
    origin.trouble = Denied()
    mirror.clock.advance(10)
    with pytest.raises(Denied):
        mirror.ask("")


def test_credentials_are_checked_by_the_upstream(origin: Origin, warm: Mirror) -> None:
    """A login attempt is forwarded, and its answer is not cached."""
    assert body(warm.ask("", "alice")) == b"{}"
    origin.troubles["mallory"] = Unauthorized()
    with pytest.raises(Unauthorized):
        warm.ask("", "mallory")
    assert origin.take() == ["alice: GET ", "mallory: GET "]
    assert challenged(warm) == (CHALLENGE,)


@pytest.mark.parametrize(
    "document", [b"", b"null", b"[]", b"[1]", b'["x",[]]', b"[1,[1]]", b"{", b"[NaN,[]]"]
)
def test_a_malformed_document_is_ignored(origin: Origin, warm: Mirror, document: bytes) -> None:
    warm.store.documents.documents["login/docker"] = document
    assert challenged(warm.restarted()) == (CHALLENGE,)
    assert origin.take() == ["nobody: GET "]


def test_what_is_public_needs_no_token(origin: Origin, warm: Mirror) -> None:
    """A marker stands for none; harmless parameters do not matter."""
    assert warm.token(SCOPE) == warm.token(SCOPE, SCOPE, account="me", client_id="docker") == MARKER
    assert origin.token_requests == []


@pytest.mark.parametrize(
    "scopes",
    [
        (),
        ("repository:me/private:pull",),
        (SCOPE, "repository:me/private:pull"),
        (f"repository:{NAME}:pull,push",),
        (f"repository:{NAME}:*",),
        ("registry:catalog:*",),
        ("aws",),
        ("repository:../../x:pull",),
    ],
)
def test_other_scopes_go_to_the_token_service(origin: Origin, warm: Mirror, scopes: tuple[str, ...]) -> None:
    """Private repositories, and more than pulling."""
    assert warm.token(*scopes) == "token-1"
    assert len(origin.token_requests) == 1


@pytest.mark.parametrize(
    ("fields", "credentials"),
    [({}, Credentials.basic("a", "b")), ({"password": "b"}, None), ({"refresh_token": "b"}, None)],
)
def test_requests_with_a_secret_are_forwarded(
    origin: Origin, warm: Mirror, fields: dict[str, str], credentials: Credentials | None
) -> None:
    """Also for public repositories: a wrong password or an outage must be reported."""
    request = TokenRequest.parse([("scope", SCOPE), *fields.items()], True, credentials)
    answer = now(warm.tokens.token(request))
    assert "token-1" in json.loads(body(answer)).values()
    assert header(answer, "Cache-Status") == "dockmirror; fwd=bypass"
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        now(warm.tokens.token(request))
    assert origin.token_requests == [request, request]


@pytest.mark.parametrize("error", [Unreachable(), TimedOut(), RegistryError(status=429)])
def test_public_pulls_need_no_token_in_an_outage(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    """For a week; the token service is not asked again either."""
    warm.clock.advance(3 * DAY)
    origin.trouble = error
    assert warm.token(SCOPE) == warm.token(SCOPE) == MARKER
    assert len(origin.token_requests) == 1
    for scope in ("", "repository:me/private:pull"):
        with pytest.raises(type(error)):
            warm.token(*filter(None, [scope]))
    origin.trouble = Denied()
    warm.clock.advance(60)
    with pytest.raises(Denied):
        warm.token(SCOPE)
    warm.clock.advance(5 * DAY)
    origin.trouble = error
    with pytest.raises(type(error)):
        warm.token(SCOPE)


def test_a_slow_token_service_gets_three_seconds(origin: Origin, warm: Mirror) -> None:
    """The timeout is short if the client can pull without a token."""
    warm.clock.advance(3 * DAY)
    origin.held_up = True
    request = TokenRequest.parse([("scope", SCOPE)])
    other = TokenRequest.parse([("scope", "repository:me/private:pull")])
    waiting, patient = watch(warm.tokens.token(request)), watch(warm.tokens.token(other))
    warm.clock.advance(PATIENCE)
    assert (len(waiting), patient) == (1, [])
    origin.go_on()
    assert len(patient) == 1


def test_a_repository_that_became_private_needs_a_token(origin: Origin, warm: Mirror) -> None:
    origin.shelf(NAME).readers.clear()
    warm.clock.advance(60)
    with pytest.raises(Unauthorized) as caught:
        warm.ask(TAG)
    assert caught.value.challenges == (CHALLENGE,)
    assert warm.token(SCOPE) == "token-1"
