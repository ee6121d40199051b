"""What the operator lets be pulled: which patterns fit, and what is refused by them."""

# mypy: allow-untyped-calls

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import BytesBody, json_body
from dockmirror.interfaces import Answer, IBody, IRegistry, IWritableRegistry
from dockmirror.middleware.rules import PullRules, RuleFilter, WriteRuleFilter
from dockmirror.oci.descriptor import Descriptor
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied
from dockmirror.oci.request import RegistryRequest, Target, parse_target
from dockmirror.oci.token import TokenRequest
from dockmirror.oci.write import Write, WriteResult, parse_write

from ..answering import FakeRegistry, now
from ..house import House
from ..internet import BUSYBOX, HUB, Internet
from ..pullthrough.origin import Origin
from ..values import targets

ANSWER = Answer(json_body(b"{}"))
D1, D2 = Digest.of(b"1"), Digest.of(b"2")
NGINX = "library/nginx"
KEY = "upstreams.docker"


def of(text: str) -> Target:
    """What is asked for: a tag, a digest, a blob, referrers or tags of a repository."""
    name, _, rest = text.partition(" ")
    kind, _, last = rest.partition(" ")
    last = {"D1": str(D1), "D2": str(D2)}.get(last, last)
    return parse_target(f"/v2/{name}/{kind or 'tags'}/{last or 'list'}".encode())


def refusal(text: str, allow: list[str], deny: list[str]) -> str | None:
    """What is said; None where it is let through, and asked of the registry as it was asked here."""
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(of(text))
    said: str | None = None
    try:
        assert now(RuleFilter(registry, PullRules(KEY, allow, deny)).fetch(request)) is ANSWER
    except Denied as refused:
        said = str(refused)
    assert registry.requests == ([request] if said is None else [])
    return said


def test_it_is_a_registry() -> None:
    """In front of another one, which is asked for tokens as before."""
    registry = FakeRegistry(ANSWER)
    allowed = RuleFilter(registry, PullRules(KEY, ["a"], []))
    assert verifyObject(IRegistry, allowed)
    request = TokenRequest.parse([("scope", "repository:b:pull")])
    now(allowed.token(request))
    assert registry.token_requests == [request]


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        (NGINX, [NGINX], ["library/nginx2", "library/nginx/x", "me/library/nginx", "nginx"]),
        ("library/*", [NGINX, "library/a.b"], ["library", "library/a/b", "library2/a"]),
        ("team/**", ["team/a", "team/a/b/c"], ["team", "teams/a"]),
        ("**", ["a", "a/b/c"], []),
        ("*", ["a"], ["a/b"]),
        ("**/nginx", ["a/nginx", "a/b/nginx"], ["nginx", "a/b-nginx"]),
        ("a?c/x", ["abc/x", "a-c/x"], ["ac/x", "abbc/x"]),
        ("a.c/x", ["a.c/x"], ["abc/x"]),
    ],
)
def test_a_pattern_of_repositories(pattern: str, fits: list[str], does_not: list[str]) -> None:
    """Is of everything in them."""
    for name in fits:
        for asked in (
            f"{name} manifests 1",
            f"{name} manifests D1",
            f"{name} blobs D1",
            f"{name} referrers D1",
            name,
        ):
            assert refusal(asked, [pattern], []) is None, asked
            assert refusal(asked, [], [pattern]) is not None, asked
    for name in does_not:
        for asked in (
            f"{name} manifests 1",
            f"{name} manifests D1",
            f"{name} blobs D1",
            f"{name} referrers D1",
            name,
        ):
            assert refusal(asked, [pattern], []) is not None, asked
            assert refusal(asked, [], [pattern]) is None, asked


@pytest.mark.parametrize(
    ("pattern", "allowed", "not_allowed"),
    [
        (
            "library/nginx:1.*",
            ["manifests 1.27", "manifests 1.", "manifests D1", "blobs D1", "referrers D1", ""],
            ["manifests 2.0", "manifests latest", "manifests 1"],
        ),
        (
            f"library/nginx@{D1}",
            ["manifests D1", "blobs D1", "blobs D2", "referrers D2", ""],
            ["manifests D2", "manifests 1.27"],
        ),
        ("library/*@sha256:*", ["manifests D1", "blobs D1"], ["manifests latest"]),
    ],
)
def test_what_is_allowed_can_be_pulled(pattern: str, allowed: list[str], not_allowed: list[str]) -> None:
    """With all that a tag leads to, which clients ask for by digest."""
    for rest in allowed:
        assert refusal(f"{NGINX} {rest}".strip(), [pattern], []) is None, rest
        assert refusal(f"other/nginx {rest}".strip(), [pattern], []) is not None, rest
    for rest in not_allowed:
        assert refusal(f"{NGINX} {rest}", [pattern], []) is not None, rest


@pytest.mark.parametrize(
    ("pattern", "denied", "not_denied"),
    [
        (
            "library/nginx:1.*",
            ["manifests 1.27"],
            ["manifests 2", "manifests D1", "blobs D1", "referrers D1", ""],
        ),
        (
            f"library/nginx@{D1}",
            ["manifests D1", "blobs D1", "referrers D1"],
            ["manifests D2", "manifests 1", "blobs D2", ""],
        ),
        ("library/nginx@*", ["manifests D2", "blobs D1"], ["manifests 1", ""]),
    ],
)
def test_what_is_denied_is_just_that(pattern: str, denied: list[str], not_denied: list[str]) -> None:
    """And stands above what is allowed."""
    for rest in denied:
        assert refusal(f"{NGINX} {rest}", ["**"], [pattern]) is not None, rest
    for rest in not_denied:
        assert refusal(f"{NGINX} {rest}".strip(), ["**"], [pattern]) is None, rest


def test_a_refusal_names_what_and_why() -> None:
    """The key is the operator's to change."""
    assert refusal(f"{NGINX} manifests 2", ["a"], []) == (
        "library/nginx:2 may not be pulled here: 'upstreams.docker.allow' does not have it"
    )
    assert refusal(f"{NGINX} blobs D1", [], [NGINX]) == (
        f"library/nginx@{D1} may not be pulled here: 'upstreams.docker.deny' has it"
    )
    assert (
        refusal(NGINX, [], [NGINX]) == "library/nginx may not be pulled here: 'upstreams.docker.deny' has it"
    )


@pytest.mark.parametrize("head", [False, True])
def test_a_tag_that_names_what_is_denied(head: bool) -> None:
    """Is no way to it; what the registry sent is given back."""
    content = BytesBody(b"1", Descriptor(digest=D1, size=1))
    registry = FakeRegistry(Answer(content), Answer(content))
    request = RegistryRequest(of(f"{NGINX} manifests latest"), head=head)
    with pytest.raises(Denied, match="deny"):
        now(RuleFilter(registry, PullRules(KEY, [], [f"**@{D1}"])).fetch(request))
    assert now(RuleFilter(registry, PullRules(KEY, [], [f"**@{D2}"])).fetch(request)).body is content


def test_where_there_are_rules_nothing_is_listed() -> None:
    """But the handshake is as it was."""
    registry = FakeRegistry(ANSWER)
    allowed = RuleFilter(registry, PullRules(KEY, [], ["a"]))
    assert now(allowed.fetch(RegistryRequest(parse_target(b"/v2/")))) is ANSWER
    with pytest.raises(Denied, match="not listed"):
        now(allowed.fetch(RegistryRequest(parse_target(b"/v2/_catalog"))))
    assert len(registry.requests) == 1


@given(targets)
def test_deny_everything(target: Target) -> None:
    """Then only the handshake is left."""
    registry = FakeRegistry(ANSWER)
    try:
        now(RuleFilter(registry, PullRules(KEY, ["**"], ["**"])).fetch(RegistryRequest(target)))
        assert str(target) == "/v2/"
    except Denied:
        assert registry.requests == []


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("docker.mirror.example", "/v2/{}/manifests/latest"),
        ("mirror.example", "/v2/{}/manifests/latest"),
        ("mirror.example", "/v2/docker.io/{}/manifests/latest"),
        ("mirror.example", "/v2/{}/manifests/latest?ns=docker.io"),
    ],
)
def test_names_are_complete(host: str, path: str) -> None:
    """On both hosts; what is refused is so before a token is asked for."""
    internet = Internet()
    internet.hub.push("team/secret", "latest")
    house = House(internet, upstreams={"docker": {"allow": ["library/*"]}})
    refused = house.get(host, path.format("team/secret"))
    assert refused.error == (403, "DENIED")
    assert "'upstreams.docker.allow'" in refused.message
    assert internet.asked(HUB) == []
    assert house.pull(host, path.format("busybox")).body == BUSYBOX


@implementer(IWritableRegistry)
class Writes:
    """A registry that notes what it is asked to change."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def write(self, write: Write, body: IBody) -> WriteResult:
        """See ``IWritableRegistry``."""
        self.seen.append(write.path_and_query().partition("uploads/")[2])
        return WriteResult(202)


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ((("mount", str(D1)), ("from", "team/b")), f"?mount={quote(str(D1))}&from=team%2Fb"),
        ((("mount", str(D1)), ("from", "team/secret")), None),
        ((("mount", str(D2)), ("from", "team/b")), None),
        ((("mount", str(D2)),), None),
        ((("digest", str(D2)),), None),
        ((("digest", str(D1)),), f"?digest={quote(str(D1))}"),
        ((("mount", str(D1)),), ""),
        ((("mount", str(D1)), ("digest-algorithm", "sha256")), "?digest-algorithm=sha256"),
    ],
)
def test_what_is_mounted(query: tuple[tuple[str, str], ...], asked: str | None) -> None:
    """Comes from where it may be pulled: a registry that may choose where from is not asked to mount."""
    writes = Writes()
    allowed = WriteRuleFilter(writes, PullRules(KEY, [], ["team/secret", f"**@{D2}"]))
    write = parse_write("POST", b"/v2/team/a/blobs/uploads/", query)
    if asked is None:
        with pytest.raises(Denied):
            now(allowed.write(write, json_body(b"")))
    else:
        now(allowed.write(write, json_body(b"")))
    assert writes.seen == ([] if asked is None else [asked])


@pytest.mark.parametrize(
    ("path", "query", "refused"),
    [
        (f"manifests/{D1}", (), False),
        (f"manifests/{D1}", (("tag", "1"),), False),
        (f"manifests/{D1}", (("tag", "1"), ("tag", "prod")), True),
        ("manifests/prod", (), True),
        ("manifests/1", (("tag", "prod"),), True),
    ],
)
def test_all_tags_of_a_push(path: str, query: tuple[tuple[str, str], ...], refused: bool) -> None:
    """Are looked at, by path and by parameter; what is refused is not asked."""
    origin = Origin()
    writes = WriteRuleFilter(origin, PullRules(KEY, [], ["team/a:prod"]))
    write = parse_write("PUT", f"/v2/team/a/{path}".encode(), query)
    said: Denied | None = None
    try:
        assert now(writes.write(write, json_body(b"{}"))).status == 201
    except Denied as denied:
        said = denied
    assert (said is not None) is refused
    assert (origin.shelf("team/a").manifests == {}) is refused
