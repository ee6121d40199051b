"""Credentials, and tokens: how they are asked for, and what is read in what is given."""

from __future__ import annotations

import base64
import json
import math
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.errors import Unavailable, Unsupported
from dockmirror.oci.request import Ping, RegistryRequest, Repository
from dockmirror.oci.token import (
    CATALOG,
    MARKER,
    MARKER_ANSWER,
    Credentials,
    Login,
    Scope,
    Token,
    TokenRequest,
    complete_token,
    parse_scopes,
    pull_scope,
)

from ..values import scopes

PULL_A, PULL_B = "repository:a:pull", "repository:b:pull"
TEXT = st.text(st.characters(codec="utf-8"))
KEYS = st.sampled_from(["scope", "service", "ns", "account", "client_id", "password", "refresh_token"])
PAIRS = st.lists(st.tuples(KEYS, TEXT))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys(["token", "access_token", "expires_in", "x"], JSON))


@pytest.mark.parametrize(
    ("pairs", "form", "service", "sent"),
    [
        (
            [("account", "me"), ("scope", f"{PULL_A} {PULL_B}"), ("service", "mirror"), ("scope", PULL_A)],
            False,
            "up stream",
            [("service", "up stream"), ("scope", PULL_A), ("scope", PULL_B), ("account", "me")],
        ),
        (
            [("grant_type", "refresh_token"), ("scope", PULL_A), ("scope", PULL_B), ("refresh_token", "r")],
            True,
            "upstream",
            [("service", "upstream"), ("scope", f"{PULL_A} {PULL_B}"), ("grant_type", "refresh_token"),
             ("refresh_token", "r")],
        ),
        ([("scope", ""), ("service", "mirror")], False, "", []),
        ([("scope", ""), ("service", "mirror")], True, "", []),
        ([("ns", "docker.io"), ("account", "me")], False, "", [("account", "me")]),
    ],
)  # fmt: skip
def test_a_request_is_written_for_the_upstream(
    pairs: list[tuple[str, str]], form: bool, service: str, sent: list[tuple[str, str]]
) -> None:
    """A GET repeats ``scope`` as podman and dockerd do, a form has one of words (RFC 6749, 3.3).

    The service is replaced, empty parameters and the mirror's own ``ns`` are left out.
    """
    assert TokenRequest.parse(pairs, form).pairs(service) == sent


@given(PAIRS, st.booleans(), st.sampled_from(["", "upstream"]))
def test_asking_again_asks_for_the_same(pairs: list[tuple[str, str]], form: bool, service: str) -> None:
    """A request that is written and parsed again is the same."""
    request = TokenRequest.parse(pairs, form)
    sent = parse_qsl(urlencode(request.pairs(service)), keep_blank_values=True)
    assert TokenRequest.parse(sent, form) == request
    assert sorted(p for p in pairs if p[0] not in ("scope", "service", "ns")) == sorted(request.parameters)


def test_scopes_that_become_equal_are_asked_for_once() -> None:
    """A client that asks for ``busybox`` and ``library/busybox`` means one repository."""
    request = TokenRequest.parse([("scope", PULL_A), ("scope", PULL_B)])
    assert request.map_scopes(lambda scope: scope.renamed("c")).scopes == (Scope.parse("repository:c:pull"),)


@pytest.mark.parametrize(
    ("pairs", "anonymous"),
    [
        ([], True),
        ([("scope", PULL_A), ("service", "s"), ("ns", "docker.io")], True),
        ([("account", "me"), ("client_id", "docker"), ("offline_token", "true")], True),
        ([("access_type", "offline"), ("grant_type", "password"), ("username", "me")], True),
        ([("grant_type", "password"), ("username", "me"), ("password", "s3cret")], False),
        ([("grant_type", "refresh_token"), ("refresh_token", "s3cret")], False),
        ([("assertion", "s3cret")], False),
        ([("Password", "s3cret")], False),
    ],
)
def test_what_could_be_a_secret_is_not_anonymous(pairs: list[tuple[str, str]], anonymous: bool) -> None:
    """A parameter that is not known to be harmless is taken for one; so are credentials beside."""
    assert TokenRequest.parse(pairs, form=True).is_anonymous is anonymous
    assert not TokenRequest.parse(pairs, credentials=Credentials.bearer("s3cret")).is_anonymous


def test_secrets_are_not_shown() -> None:
    request = TokenRequest.parse([("password", "s3cret")], True, Credentials.basic("me", "s3cret"))
    logins = [PASSWORD, IDENTITY, IDENTITY.token_request(SCOPE)]
    for shown in (repr(request), str(request), repr(Token("s3cret")), str(Token("s3cret")), repr(logins)):
        assert not {word for word in ("s3cret", "r3fresh", "Basic") if word in shown}


@pytest.mark.parametrize(
    ("body", "value", "life"),
    [
        (b'{"token":"t"}', "t", 60),
        (b'{"access_token":"t"}', "t", 60),
        (b'{"token":"t","access_token":"u","expires_in":300}', "t", 300),
        (b'{"token":"","access_token":"t","expires_in":0.5}', "t", 0.5),
        (b'{"token":null,"access_token":"t","expires_in":null}', "t", 60),
        (b'{"token":"t","expires_in":0}', "t", 60),
        (b'{"token":"t","expires_in":-5}', "t", 60),
        (b'{"token":"t","expires_in":"300"}', "t", 60),
        (b'{"token":"t","expires_in":NaN}', "t", 60),
        (b'\xef\xbb\xbf{"token":"t"}', "t", 60),
    ],
)
def test_a_token_has_one_of_two_names(body: bytes, value: str, life: float) -> None:
    """A token is read under either name, and lives a minute unless the service states otherwise."""
    assert Token.parse(body) == Token(value, life)


@pytest.mark.parametrize("life", [b"1" + b"0" * 400, b"1e400", b"Infinity"])
def test_no_token_lives_for_ever(life: bytes) -> None:
    """A life too long for a clock is cut."""
    assert math.isfinite(Token.parse(b'{"token":"t","expires_in":' + life + b"}").expires_in)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b'"t"', b"{}", b"<html>", b"\xff\xfe\x00", b'{"token":', b"[" * 50_000),
        *(b'{"token":""}', b'{"access_token":""}', b'{"token":"","access_token":""}', b'{"token":null}'),
        *(b'{"token":5}', b'{"token":["t"]}', b'{"token":"a\\r\\nX: y"}', b'{"token":"\\ud800"}'),
        b'{"token":"t","expires_in":' + b"1" * 5000 + b"}",
    ],
)
def test_what_holds_no_token_is_of_no_use(body: bytes) -> None:
    """No JSON, no text, no value; or one that would break out of its header."""
    for parse in (Token.parse, complete_token):
        with pytest.raises(Unavailable):
            parse(body)


@given(FIELDS)
def test_no_answer_is_too_odd(fields: dict[str, object]) -> None:
    """It is a token of some life, or of no use."""
    try:
        token = Token.parse(json.dumps(fields).encode())
    except Unavailable:
        return
    assert token.value in (fields.get("token"), fields.get("access_token"))
    assert 0 < token.expires_in < math.inf


@given(FIELDS, st.sampled_from(["token", "access_token"]))
def test_clients_are_given_both_names(fields: dict[str, object], name: str) -> None:
    """The token is sent under both names, and other fields are kept."""
    body = json.dumps({**fields, "token": "", name: "t0ken"}).encode()
    completed = json.loads(complete_token(body))
    assert completed.pop("token") == completed.pop("access_token") == "t0ken"
    rest = {key: value for key, value in fields.items() if key not in ("token", "access_token")}
    assert json.dumps(completed) == json.dumps(rest)


def test_the_marker_is_a_token() -> None:
    """It is recognized when it comes back."""
    assert complete_token(MARKER_ANSWER) == MARKER_ANSWER
    assert Token.parse(MARKER_ANSWER) == Token("anonymous", 3600)
    assert Credentials.bearer(Token.parse(MARKER_ANSWER).value).is_bearer(MARKER)


SCOPE = pull_scope("team/app")
PASSWORD = Login(Credentials.basic("alice", "s3cret"))
IDENTITY = Login(None, "r3fresh")


def test_a_login_is_sent_with_its_token_request() -> None:
    """A password is sent in ``Authorization``, an identity token as a refresh token in a form."""
    assert Login().token_request(SCOPE) == TokenRequest((SCOPE,))
    assert PASSWORD.token_request(SCOPE) == TokenRequest((SCOPE,), credentials=PASSWORD.credentials)
    request = IDENTITY.token_request(SCOPE)
    assert (request.form, request.credentials, request.is_anonymous) == (True, None, False)
    assert dict(request.pairs("registry")) == {
        "service": "registry",
        "scope": "repository:team/app:pull",
        "grant_type": "refresh_token",
        "client_id": "dockmirror",
        "refresh_token": "r3fresh",
    }


def test_renaming_a_scope_keeps_type_and_actions() -> None:
    scope = Scope("repository(plugin)", "a", ("pull", "push"))
    assert str(scope.renamed("library/a")) == "repository(plugin):library/a:pull,push"


def test_pulling_takes_one_action() -> None:
    """ghcr.io refuses anybody who asks to push beside."""
    assert str(pull_scope(Repository("a/b"))) == "repository:a/b:pull"


@pytest.mark.parametrize(
    ("text", "scope", "is_repository"),
    [
        ("repository:library/busybox:pull", Scope("repository", "library/busybox", ("pull",)), True),
        ("repository:a/b:pull,push", Scope("repository", "a/b", ("pull", "push")), True),
        ("repository:host:5000/a:pull", Scope("repository", "host:5000/a", ("pull",)), True),
        ("repository(plugin):a/b:pull", Scope("repository(plugin)", "a/b", ("pull",)), True),
        ("registry:catalog:*", CATALOG, False),
        ("aws", Scope("aws"), False),
        ("repository:busybox", Scope("repository:busybox"), False),
        ("repositories:busybox:pull", Scope("repositories", "busybox", ("pull",)), False),
    ],
)
def test_a_scope_has_type_name_and_actions(text: str, scope: Scope, is_repository: bool) -> None:
    """Other text is a mere word; only the name of a repository can be completed."""
    assert Scope.parse(text) == scope
    assert scope.is_repository is is_repository


@given(st.lists(scopes), st.data())
def test_they_may_be_repeated_or_separated(drawn: list[Scope], data: st.DataObject) -> None:
    """Scopes may be repeated or separated by spaces; duplicates are dropped, order is kept."""
    values: list[str] = []
    for scope in drawn:
        joined: bool = data.draw(st.booleans())
        if values and joined:
            values[-1] += f"  {scope}"
        else:
            values.append(str(scope))
    assert parse_scopes(values) == tuple(dict.fromkeys(drawn))
    assert parse_scopes(["", " "]) == ()


@given(TEXT, TEXT)
def test_a_name_and_a_password_are_basic(username: str, password: str) -> None:
    """RFC 7617: in UTF-8; a password may hold colons."""
    scheme, _, encoded = Credentials.basic(username, password).header.partition(" ")
    assert (scheme, base64.b64decode(encoded, validate=True).decode()) == ("Basic", f"{username}:{password}")


def test_a_token_is_known_again() -> None:
    """A token matches in any case of its scheme; another token, or a part of it, does not."""
    assert Credentials.bearer("anonymous") == Credentials("Bearer anonymous")
    assert Credentials.bearer("anonymous").is_bearer("anonymous")
    assert Credentials("bearer  anonymous ").is_bearer("anonymous")
    for header in ("Bearer anonymous2", "Bearer", "Basic anonymous", "anonymous", "Bearer Anonymous", ""):
        assert not Credentials(header).is_bearer("anonymous")


def test_credentials_are_not_shown() -> None:
    credentials = Credentials.bearer("s3cret")
    for shown in (repr(credentials), str(credentials), f"{RegistryRequest(Ping(), credentials=credentials)}"):
        assert "s3cret" not in shown


@given(st.text(), st.text())
def test_a_fingerprint_stands_for_them(header: str, other: str) -> None:
    """The same for the same, another for others, whatever bytes a client sent; and it gives nothing away."""
    fingerprint = Credentials(header).fingerprint()
    assert (fingerprint == Credentials(other).fingerprint()) is (header == other)
    assert len(fingerprint) == 64
    assert Credentials(f"{header}\udcff").fingerprint() != fingerprint


@pytest.mark.parametrize(
    "header",
    ["Bearer t0ken", "bearer a.b-c_d~e+f/g=", "Bearer  a", "Basic YTpi", "BASIC YTpiYw==", "Bearer a:b|c"],
)
def test_tokens_and_passwords_are_accepted_verbatim(header: str) -> None:
    assert Credentials.parse(header).header == header


@pytest.mark.parametrize(
    "header",
    [
        "Bearer", "Bearer ", "Bearer a b", "Bearer a\tb", "Bearer \ufffd", "Basic a:b", "Basic YTpi,",
        "Basic",
        "Digest username=s3cret", "s3cret", "Bearer a\r\nb", " Bearer a", "",
    ],
)  # fmt: skip
def test_nothing_else_is_passed_on(header: str) -> None:
    """The refusal does not repeat it."""
    with pytest.raises(Unsupported) as raised:
        Credentials.parse(header)
    assert raised.value.status == 400
    assert "s3cret" not in str(raised.value)


@given(st.text())
def test_accepted_credentials_are_printable(header: str) -> None:
    for sent in (header, f"Bearer {header}", f"Basic {header}"):
        try:
            brought = Credentials.parse(sent).header
        except Unsupported:
            continue
        assert brought.isascii()
        assert brought.isprintable()
