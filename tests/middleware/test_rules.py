"""Rules for pulls and pushes: their patterns, and their denials."""

# mypy: allow-untyped-calls

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from zope.interface import implementer

from dockmirror.body.bodies import BytesBody, json_body
from dockmirror.interfaces import Answer, IBody, IWritableRegistry
from dockmirror.middleware.filters import PullRules, RuleFilter, WriteRuleFilter
from dockmirror.oci.digest import Descriptor, Digest
from dockmirror.oci.errors import Denied
from dockmirror.oci.request import RegistryRequest, Target, parse_target
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
    """Return a target: a tag, a digest, a blob, referrers or tags of a repository."""
    name, _, rest = text.partition(" ")
    kind, _, last = rest.partition(" ")
    last = {"D1": str(D1), "D2": str(D2)}.get(last, last)
    return parse_target(f"/v2/{name}/{kind or 'tags'}/{last or 'list'}".encode())


def refusal(text: str, allow: list[str], deny: list[str]) -> str | None:
    """Return the denial's text, or None if the request was passed on unchanged."""
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(of(text))
    said: str | None = None
    try:
        assert now(RuleFilter(registry, PullRules(KEY, allow, deny)).fetch(request)) is ANSWER
    except Denied as refused:
        said = str(refused)
    assert registry.requests == ([request] if said is None else [])
    return said


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
def test_a_pattern_covers_its_repositories(pattern: str, fits: list[str], does_not: list[str]) -> None:
    """A pattern covers everything in the repositories that it matches."""
    for name in (*fits, *does_not):
        for rest in (" manifests 1", " manifests D1", " blobs D1", " referrers D1", ""):
            assert (refusal(name + rest, [pattern], []) is None) is (name in fits), name + rest
            assert (refusal(name + rest, [], [pattern]) is None) is (name in does_not), name + rest


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
def test_allowed_images_can_be_pulled(pattern: str, allowed: list[str], not_allowed: list[str]) -> None:
    """With all that a tag refers to, which clients fetch by digest."""
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
def test_denials_take_precedence_and_deny_nothing_else(
    pattern: str, denied: list[str], not_denied: list[str]
) -> None:
    for rest in denied:
        assert refusal(f"{NGINX} {rest}", ["**"], [pattern]) is not None, rest
    for rest in not_denied:
        assert refusal(f"{NGINX} {rest}".strip(), ["**"], [pattern]) is None, rest


def test_a_denial_names_its_target_and_its_rule() -> None:
    """The operator can change the key."""
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
def test_a_tag_of_a_denied_digest_is_denied(head: bool) -> None:
    content = BytesBody(b"1", Descriptor(digest=D1, size=1))
    registry = FakeRegistry(Answer(content), Answer(content))
    request = RegistryRequest(of(f"{NGINX} manifests latest"), head=head)
    with pytest.raises(Denied, match="deny"):
        now(RuleFilter(registry, PullRules(KEY, [], [f"**@{D1}"])).fetch(request))
    assert now(RuleFilter(registry, PullRules(KEY, [], [f"**@{D2}"])).fetch(request)).body is content


def test_rules_deny_the_catalog_but_not_the_handshake() -> None:
    registry = FakeRegistry(ANSWER)
    allowed = RuleFilter(registry, PullRules(KEY, [], ["a"]))
    assert now(allowed.fetch(RegistryRequest(parse_target(b"/v2/")))) is ANSWER
    with pytest.raises(Denied, match="catalog is not served"):
        now(allowed.fetch(RegistryRequest(parse_target(b"/v2/_catalog"))))
    assert len(registry.requests) == 1


@settings(max_examples=30)
@given(targets)
def test_everything_but_the_handshake_can_be_denied(target: Target) -> None:
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
def test_rules_apply_to_complete_names(host: str, path: str) -> None:
    """On both hosts; a denied image costs no token."""
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
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def write(self, write: Write, body: IBody) -> WriteResult:
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
def test_a_mount_needs_an_allowed_source(query: tuple[tuple[str, str], ...], asked: str | None) -> None:
    """A mount whose source the registry may choose becomes an upload."""
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
def test_all_tags_of_a_push_are_checked(path: str, query: tuple[tuple[str, str], ...], refused: bool) -> None:
    """By path and by parameter; a denied push is not sent."""
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
