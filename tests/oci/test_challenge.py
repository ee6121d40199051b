"""Challenges, as upstreams write them and as clients can read them."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockmirror.oci.errors import Challenge, find_challenge, parse_challenges

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


@pytest.mark.parametrize("seen", SEEN)
def test_challenges_of_upstreams_are_parsed(seen: str) -> None:
    line, parameters = SEEN[seen]
    challenge = Challenge(line.split()[0], parameters)
    assert parse_challenges([line]) == (challenge,)
    assert parse_challenges(["", line]) == (challenge,)


TWO = (Challenge("Basic", {"realm": "b"}), Challenge("Bearer", HUB))
BEARER = f'Bearer realm="{HUB["realm"]}",service="{HUB["service"]}"'


@pytest.mark.parametrize(
    "lines",
    [
        [f'Basic realm="b", {BEARER}'],
        [f'Basic realm="b",{BEARER}'],
        [f"Basic realm=b,{BEARER}"],
        ['Basic realm="b"', BEARER],
        ['Basic realm="b",', f", {BEARER}"],
        [f'Basic realm="b" {BEARER}'],
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
