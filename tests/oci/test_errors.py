"""Errors: the specification's table, error responses of upstreams, and challenges."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.oci.errors import (
    ERROR_CLASSES,
    BlobUnknown,
    Challenge,
    Denied,
    ErrorEntry,
    ManifestUnknown,
    NameUnknown,
    RangeInvalid,
    RegistryError,
    SizeInvalid,
    TimedOut,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
    Unsupported,
    UpstreamRefusal,
    find_challenge,
    parse_challenges,
    summarize_error,
)

WORDS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=8)
KEYS = st.sampled_from(["realm", "service", "scope", "error"]) | WORDS.map(str.lower)
VALUES = st.text(min_size=1) | st.text('",\\= ab', min_size=1, max_size=12)
CHALLENGES = st.builds(Challenge, WORDS, st.dictionaries(KEYS, VALUES, max_size=4))
HUB = {"realm": "https://auth.docker.io/token", "service": "registry.docker.io"}
SUSE = {"realm": "https://registry.suse.com/auth", "service": "SUSE Linux Docker Registry"}
ECR = {"realm": "https://1.dkr.ecr.eu-west-1.amazonaws.com/", "service": "ecr.amazonaws.com"}
SEEN = {
    "Docker Hub": (
        'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
        'scope="repository:library/busybox:pull,push"',
        {**HUB, "scope": "repository:library/busybox:pull,push"},
    ),
    "gcr.io, which does not quote": (
        'Bearer realm="https://gcr.io/v2/token",service=gcr.io',
        {"realm": "https://gcr.io/v2/token", "service": "gcr.io"},
    ),
    "ECR, which wants a password": (
        'Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"',
        ECR,
    ),
    "nvcr.io, whose realm has a query with a comma, and no service": (
        'Bearer realm="https://nvcr.io/proxy_auth?scope=repository:nvidia/cuda:pull,push"',
        {"realm": "https://nvcr.io/proxy_auth?scope=repository:nvidia/cuda:pull,push"},
    ),
    "nvcr.io, with an empty service": (
        'Bearer realm="https://nvcr.io/proxy_auth",service="",scope=',
        {"realm": "https://nvcr.io/proxy_auth", "service": "", "scope": ""},
    ),
    "SUSE, whose service has spaces": (
        'Bearer realm="https://registry.suse.com/auth",service="SUSE Linux Docker Registry"',
        SUSE,
    ),
    "in another order, with gaps": (
        ' Bearer  scope = "aws" ,\tservice="s" , ,realm="r" ,',
        {"scope": "aws", "service": "s", "realm": "r"},
    ),
    "keys in capitals, the first of two": ('Bearer Realm="r",REALM="other"', {"realm": "r"}),
    "escapes": (r'Bearer realm="a\"b\\c\d,e"', {"realm": r'a"b\cd,e'}),
    "values that nobody quotes": (
        "Bearer realm=https://r.example:5000/token?a=b&c=d,service=s",
        {"realm": "https://r.example:5000/token?a=b&c=d", "service": "s"},
    ),
    "a quote that is not closed": (
        'Bearer service="s",realm="https://r/token',
        {"service": "s", "realm": "https://r/token"},
    ),
    "semicolons": ('Bearer realm="r";service="s"', {"realm": "r", "service": "s"}),
    "nothing between them": ('Bearer realm="r"service="s"', {"realm": "r", "service": "s"}),
    "no parameter": ("Bearer", {}),
    "an empty realm": ('Bearer realm=""', {"realm": ""}),
}
TWO = (Challenge("Basic", {"realm": "b"}), Challenge("Bearer", HUB))
BEARER_FIELD = f'Bearer realm="{HUB["realm"]}",service="{HUB["service"]}"'
SPECIFIED = [
    *(
        "BLOB_UNKNOWN",
        "BLOB_UPLOAD_INVALID",
        "BLOB_UPLOAD_UNKNOWN",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
    ),
    *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED"),
    *("DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"),
]
"""OCI distribution specification 1.1, "Error Codes": code-1 to code-14."""
ADDED = ["TAG_INVALID", "RANGE_INVALID", "UNAVAILABLE"]
STATUSES = {
    "BLOB_UNKNOWN": 404, "BLOB_UPLOAD_UNKNOWN": 404, "MANIFEST_BLOB_UNKNOWN": 404, "MANIFEST_UNKNOWN": 404,
    "NAME_UNKNOWN": 404, "UNAUTHORIZED": 401, "DENIED": 403, "UNSUPPORTED": 405, "TOOMANYREQUESTS": 429,
    "RANGE_INVALID": 416, "UNAVAILABLE": 502,
}  # fmt: skip
"""Every other status is 400."""
DENIED = b'{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}'
BEARER = Challenge("Bearer", {"realm": "https://auth.example/token"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"code": st.sampled_from(SPECIFIED) | JSON, "message": JSON, "detail": JSON}
)
BODIES = st.one_of(
    st.binary(),
    JSON.map(json.dumps).map(str.encode),
    st.builds(
        lambda value: json.dumps({"errors": value}).encode(), st.lists(ENTRIES | JSON, max_size=3) | JSON
    ),
)


@pytest.mark.parametrize("seen", SEEN)
def test_challenges_of_upstreams_are_parsed(seen: str) -> None:
    line, parameters = SEEN[seen]
    challenge = Challenge(line.split()[0], parameters)
    assert parse_challenges([line]) == (challenge,)
    assert parse_challenges(["", line]) == (challenge,)


@pytest.mark.parametrize(
    "lines",
    [
        [f'Basic realm="b", {BEARER_FIELD}'],
        [f'Basic realm="b",{BEARER_FIELD}'],
        [f"Basic realm=b,{BEARER_FIELD}"],
        ['Basic realm="b"', BEARER_FIELD],
        ['Basic realm="b",', f", {BEARER_FIELD}"],
        [f'Basic realm="b" {BEARER_FIELD}'],
    ],
)
def test_several_challenges_are_told_apart(lines: list[str]) -> None:
    """Several challenges are parsed from one line or several, in the upstream's order."""
    assert parse_challenges(lines) == TWO


@pytest.mark.parametrize(
    ("line", "schemes"),
    [
        ("Negotiate, Basic", ["Negotiate", "Basic"]),
        ('Negotiate oYH1MIHy==, Basic realm="b"', ["Negotiate", "Basic"]),
        ("Negotiate YQ=, NTLM TlRMTVNTUAAB", ["Negotiate", "NTLM"]),
        ('Digest realm="b",nonce="a=,b", Bearer realm="r"', ["Digest", "Bearer"]),
    ],
)
def test_other_schemes_are_passed_over(line: str, schemes: list[str]) -> None:
    """Their tokens are no challenges of their own (RFC 9110, 11.2: ``token68``)."""
    assert [challenge.scheme for challenge in parse_challenges([line])] == schemes


def test_a_challenge_is_found_by_its_scheme() -> None:
    """The first of it, in whatever case it was written."""
    challenges = parse_challenges(['BASIC realm="b", bearer realm="1", Bearer realm="2"'])
    assert find_challenge(challenges, "Bearer") == Challenge("bearer", {"realm": "1"})
    assert find_challenge(challenges, "basic") == Challenge("BASIC", {"realm": "b"})
    assert find_challenge(challenges, "Digest") is None


def test_a_parameter_that_was_not_given_is_empty() -> None:
    """A missing parameter reads as an empty one: clients cannot tell either."""
    assert Challenge("Bearer", {"realm": "r"}).get("service") == ""
    assert Challenge("Bearer", {"realm": "r"}).get("realm") == "r"


def test_clients_are_sent_one_that_they_can_read() -> None:
    """Keys in lower case, all values quoted, none empty: moby's parser stops at an empty one."""
    challenge = Challenge(
        "Bearer", {"realm": "https://m/v2/auth", "service": "m", "scope": "", "error": 'a"\\'}
    )
    assert str(challenge) == r'Bearer realm="https://m/v2/auth",service="m",error="a\"\\"'
    assert str(Challenge("Basic")) == str(Challenge("Basic", {"realm": ""})) == "Basic"


@settings(max_examples=40)
@given(st.lists(CHALLENGES), st.sampled_from([", ", ",", " , ,"]))
def test_what_is_written_is_read_again(challenges: list[Challenge], comma: str) -> None:
    """Quotes, backslashes, commas, control characters in values; many in a line, or a line for each."""
    written = [str(challenge) for challenge in challenges]
    assert parse_challenges(written) == tuple(challenges)
    assert parse_challenges([comma.join(written)]) == tuple(challenges)


@given(st.lists(st.text() | st.text('Bearer ="\\,;realm\t', max_size=60)))
def test_no_line_is_too_odd(lines: list[str]) -> None:
    """Any line is parsed without failing, and its challenges can be written."""
    for challenge in parse_challenges(lines):
        assert re.fullmatch(r"[^\s,=\"]+", challenge.scheme)
        assert all(key == key.lower() and not set(key) & set(' ,"=') for key in challenge.parameters)
        rest = {key: value for key, value in challenge.parameters.items() if value}
        assert parse_challenges([str(challenge)]) == (Challenge(challenge.scheme, rest),)


@pytest.mark.parametrize(
    "junk", ["a" * 16_000 + '"', "a" * 16_000 + "(", '"' * 16_000, 'a="' * 5_000, "a=\\" * 5_000]
)
def test_no_line_takes_long(junk: str) -> None:
    """The longest line that a server may send is parsed in linear time."""
    before = time.process_time()
    parse_challenges([f"Bearer {junk}", f"Bearer {junk} {junk}"])
    assert time.process_time() - before < 1


def read(error: RegistryError) -> list[dict[str, Any]]:
    body = json.loads(error.body())
    assert list(body) == ["errors"]
    errors: list[dict[str, Any]] = body["errors"]
    return errors


def test_every_code_of_the_specification_has_a_row() -> None:
    """Every code of the specification has a class, and three additions of distribution."""
    assert [row.code for row in ERROR_CLASSES] == SPECIFIED + ADDED


@pytest.mark.parametrize("row", ERROR_CLASSES, ids=lambda row: row.code)
def test_a_row_has_a_status_and_a_message(row: type[RegistryError]) -> None:
    """Each class has a default status and message."""
    error = row()
    assert error.status == STATUSES.get(row.code, 400)
    assert read(error) == [{"code": row.code, "message": row.default_message, "detail": None}]
    assert str(error) == row.default_message


def test_an_error_says_more_where_more_is_known() -> None:
    """Message and status; the exception's own text is the message."""
    error = BlobUnknown("not here", status=410)
    assert (error.status, str(error)) == (410, "not here")
    assert read(error) == [{"code": "BLOB_UNKNOWN", "message": "not here", "detail": None}]


def test_a_416_knows_how_much_there_is() -> None:
    """A 416 carries the size of the content, if it is known."""
    assert RangeInvalid(content_size=0).content_size == 0
    assert RangeInvalid().content_size is None


def test_what_is_of_no_row_is_unknown() -> None:
    """A mistake of our own, or an upstream's refusal that no row fits."""
    error = RegistryError()
    assert (error.status, error.challenges, error.retry_after, error.upstream_status) == (500, (), None, None)
    assert read(error) == [{"code": "UNKNOWN", "message": "unknown error", "detail": None}]


def test_a_cause_never_leaves_the_process() -> None:
    error = Unreachable("cannot be reached")
    error.__cause__ = ValueError("s3cret")
    assert "s3cret" not in f"{error.body()!r} {error}"


def test_no_answer_is_another_error_than_no_image() -> None:
    """502, or 504 where it took too long; both are of the kind that is tried again."""
    assert (Unreachable().status, TimedOut().status) == (502, 504)
    assert issubclass(TimedOut, Unreachable)
    assert issubclass(Unreachable, Unavailable)
    assert Unreachable().code == TimedOut().code == "UNAVAILABLE"


def test_an_upstreams_own_words_are_kept() -> None:
    """All entries, with their details; the first says which row it is."""
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"n","detail":{"a":[1]}},{"code":"X_OWN"}]}'
    error = UpstreamRefusal(404, body, unknown=ManifestUnknown).error()
    assert type(error) is NameUnknown
    assert error.entries == (ErrorEntry("NAME_UNKNOWN", "n", {"a": [1]}), ErrorEntry("X_OWN", "", None))
    assert [entry["code"] for entry in read(error)] == ["NAME_UNKNOWN", "X_OWN"]


def test_a_code_of_its_own_is_kept_too() -> None:
    """It is some error of the upstream's status."""
    error = UpstreamRefusal(418, b'{"errors":[{"code":"TEAPOT","message":"short and stout"}]}').error()
    assert (type(error), error.status) == (RegistryError, 418)
    assert read(error) == [{"code": "TEAPOT", "message": "short and stout", "detail": None}]


@pytest.mark.parametrize("body", [DENIED, b"", b"Not Authorized\n", b"<html>", b'{"details":"denied"}'])
def test_a_401_demands_credentials_whatever_its_code(body: bytes) -> None:
    """Docker Hub says ``DENIED`` to who may just have to log in; the challenge goes with it."""
    error = UpstreamRefusal(401, body, challenges=(BEARER,)).error()
    assert type(error) is Unauthorized
    assert (error.status, error.challenges) == (401, (BEARER,))


@pytest.mark.parametrize("body", [b'{"errors":[{"code":"DENIED"}]}', b"slow down"])
def test_a_429_is_a_limit_whatever_its_code(body: bytes) -> None:
    """A 429 is a rate limit whatever its code, with the upstream's ``Retry-After``."""
    error = UpstreamRefusal(429, body, retry_after="120").error()
    assert type(error) is TooManyRequests
    assert (error.status, error.retry_after) == (429, "120")


@pytest.mark.parametrize(
    ("status", "row"),
    [
        *((400, RegistryError), (401, Unauthorized), (403, Denied), (404, BlobUnknown), (405, Unsupported)),
        *((406, RegistryError), (410, RegistryError), (413, SizeInvalid), (416, RangeInvalid)),
        *((418, RegistryError), (429, TooManyRequests), (500, Unavailable), (502, Unavailable)),
        *((503, Unavailable), (504, Unavailable)),
        (599, Unavailable),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><title>404 Not Found</title></html>",
        b'<?xml version="1.0"?>\n<Error><Code>InvalidArgument</Code></Error>',
        b'{"details":"no"}',
        b'{"errors":[]}',
        b'{"errors":{"code":"DENIED"}}',
        b'{"errors":"DENIED"}',
        b'{"errors":[["DENIED"]]}',
        b'{"errors":[{"message":"no"}]}',
        b'{"errors":[{"code":null}]}',
        b'{"errors":[{"code":403,"message":"no"}]}',
        b'{"errors":[{"code":"DENIED"},{}]}',
        b'{"errors":' + b"[" * 30_000,
        b'["errors"]',
        b"\xff\x00",
    ],
)
def test_what_is_not_the_specifications_is_wrapped(
    status: int, row: type[RegistryError], body: bytes
) -> None:
    """The class by its status, which is kept; the body a detail for a human, cut and in one line."""
    error = UpstreamRefusal(status, body, unknown=BlobUnknown).error()
    assert (type(error), error.status, error.upstream_status) == (row, status, status)
    (entry,) = read(error)
    assert (entry["code"], entry["message"]) == (row.code, f"the upstream answered {status}")
    assert entry["detail"] == (" ".join(body[:512].decode("utf-8", "replace").split()) or None)


def test_a_sentence_of_an_upstream_is_in_the_message() -> None:
    """Clients show the message only; of a long one it has the beginning."""
    (entry,) = read(UpstreamRefusal(403, b"Not Authorized\n").error())
    assert (entry["message"], entry["detail"]) == (
        "the upstream answered 403: Not Authorized",
        "Not Authorized",
    )
    (entry,) = read(UpstreamRefusal(403, b"x" * 400).error())
    assert entry["message"] == f"the upstream answered 403: {'x' * 200}"


def test_a_404_without_a_code_is_of_what_was_asked_for() -> None:
    """A 404 without a code is about the requested blob, manifest or repository."""
    assert type(UpstreamRefusal(404, b"", unknown=BlobUnknown).error()) is BlobUnknown
    assert type(UpstreamRefusal(404, b"").error()) is NameUnknown


@given(st.integers(400, 599), BODIES)
def test_any_refusal_is_readable(status: int, body: bytes) -> None:
    error = UpstreamRefusal(status, body, (BEARER,), "5").error()
    assert (error.status, error.upstream_status) == (status, status)
    assert (error.challenges, error.retry_after) == ((BEARER,), "5")
    assert all(isinstance(e["code"], str) and isinstance(e["message"], str) for e in read(error))
    assert isinstance(error, Unauthorized) is (status == 401) or error.code == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (Denied("the upstream answered 403"), "the upstream answered 403"),
        (ValueError("no number"), "no number"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("the bucket is down"), "the bucket is down"),
        (OSError(2, "No such file or directory", b"/a"), "/a: No such file or directory"),
        (
            OSError(1, "Operation not permitted", "/new/1-a", None, "/pins/b"),
            "/pins/b: Operation not permitted",
        ),
        (OSError(9, "Bad file descriptor", 5), "Bad file descriptor"),
    ],
)
def test_an_error_is_summarized_with_the_path_concerned(error: Exception, summary: str) -> None:
    assert summarize_error(error) == summary
