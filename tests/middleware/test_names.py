"""Names as clients write them and as registries know them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from attrs import evolve
from hypothesis import given
from prometheus_client import CollectorRegistry
from zope.interface.verify import verifyObject

from dockmirror.body.bodies import json_body
from dockmirror.interfaces import Answer, IRegistry, ITokenService, IUpstream, IWritableRegistry
from dockmirror.metrics import Metrics
from dockmirror.middleware.filters import PullRules, WriteRuleFilter
from dockmirror.middleware.names import (
    NameRewrite,
    NamespaceFilter,
    PrefixedUpstream,
    RegistryRouter,
    ScopeRewrite,
    ShortNameRedirect,
    WriteNameRewrite,
    WriteNamespaceFilter,
)
from dockmirror.middleware.observers import WriteMetrics
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import ManifestUnknown, NameUnknown, RegistryError, Unreachable, Unsupported
from dockmirror.oci.request import (
    Blob,
    Catalog,
    Manifest,
    Ping,
    Referrers,
    RegistryRequest,
    Repository,
    Tag,
    Tags,
    Target,
    complete_short_name,
    rewrite_prefix,
)
from dockmirror.oci.token import Credentials, TokenRequest
from dockmirror.oci.write import Write

from ..answering import FakeRegistry, now
from ..fakes import Reply
from ..house import House
from ..internet import HUB, Internet
from ..pullthrough.origin import Origin
from ..values import repositories

ANSWER = Answer(json_body(b"{}"), headers=(("ETag", "x"),))
BUSYBOX, OFFICIAL, OTHER = Repository("busybox"), Repository("library/busybox"), Repository("me/busybox")
DIGEST = Digest.of(b"")
TOKEN = TokenRequest.parse([("scope", "repository:busybox:pull"), ("account", "me")])
WRAPPERS: dict[str, Callable[[IRegistry], IRegistry]] = {
    "ShortNames": lambda registry: NameRewrite(registry, complete_short_name),
    "ShortNameRedirect": ShortNameRedirect,
    "Rewritten": lambda registry: NameRewrite(registry, partial(rewrite_prefix, prefixes={"a": "b"})),
    "Namespace": lambda registry: NamespaceFilter(registry, ["docker.io"]),
}
OF_A_REPOSITORY: list[Callable[[Repository], Target]] = [
    lambda repository: Manifest(repository, Tag("latest")),
    lambda repository: Manifest(repository, DIGEST),
    lambda repository: Blob(repository, DIGEST),
    lambda repository: Referrers(repository, DIGEST),
    Tags,
]
of_a_repository = pytest.mark.parametrize("target", OF_A_REPOSITORY)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_name_wrappers_pass_other_requests_on(wrap: Callable[[IRegistry], IRegistry]) -> None:
    """The handshake, the catalog and errors."""
    registry = FakeRegistry(ANSWER, ManifestUnknown("none"))
    assert verifyObject(IRegistry, wrap(registry))
    assert now(wrap(registry).fetch(RegistryRequest(Ping()))) is ANSWER
    with pytest.raises(ManifestUnknown, match="none"):
        now(wrap(registry).fetch(RegistryRequest(Catalog())))
    assert registry.requests == [RegistryRequest(Ping()), RegistryRequest(Catalog())]


def test_a_token_without_scopes_is_asked_for_as_it_came() -> None:
    """Nothing is rewritten where no repository is named."""
    service = FakeRegistry()
    tokens = ScopeRewrite(service, complete_short_name)
    assert verifyObject(ITokenService, tokens)
    request = TokenRequest.parse([("account", "me")], True, Credentials.bearer("t"))
    now(tokens.token(request))
    assert service.token_requests == [request]


@of_a_repository
def test_a_prefixed_upstream_is_asked_below_its_prefix(target: Callable[[Repository], Target]) -> None:
    """Requests and scopes name the repository as the upstream does; what names none stays as it is."""
    registry = FakeRegistry(ANSWER, ANSWER)
    upstream = PrefixedUpstream(registry, "proxy/hub")
    assert verifyObject(IUpstream, upstream)
    for each in (target(OFFICIAL), Ping()):
        assert now(upstream.fetch(RegistryRequest(each))) is ANSWER
    below = target(Repository("proxy/hub/library/busybox"))
    assert registry.requests == [RegistryRequest(below), RegistryRequest(Ping())]
    now(upstream.token(TOKEN))
    assert [str(scope) for scope in registry.token_requests[0].scopes] == [
        "repository:proxy/hub/busybox:pull"
    ]
    with pytest.raises(Unsupported, match="catalog"):
        now(upstream.fetch(RegistryRequest(Catalog())))


@given(repositories)
def test_a_short_name_is_completed(repository: Repository) -> None:
    """A single component gets a prefix; other names stay."""
    name = complete_short_name(repository).name
    assert name == (repository.name if "/" in repository.name else f"library/{repository.name}")
    assert complete_short_name(Repository(name)).name == name


@of_a_repository
def test_short_names_are_completed_in_each_request(target: Callable[[Repository], Target]) -> None:
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(
        target(BUSYBOX), head=True, accept=("a/b",), credentials=Credentials.bearer("t")
    )
    assert now(NameRewrite(registry, complete_short_name).fetch(request)) is ANSWER
    assert registry.requests == [evolve(request, target=target(OFFICIAL))]


@of_a_repository
def test_a_short_name_can_be_redirected(target: Callable[[Repository], Target]) -> None:
    """To the complete name on the same host; the registry is not asked."""
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(target(BUSYBOX), query=(("n", "2"), ("last", "a b")), namespace="docker.io")
    answer = now(ShortNameRedirect(registry).fetch(request))
    assert (answer.status, answer.location) == (301, f"{target(OFFICIAL)}?n=2&last=a+b")
    assert (answer.body.descriptor.size, registry.requests) == (0, [])


def test_a_complete_name_is_not_redirected() -> None:
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(Tags(OTHER))
    assert now(ShortNameRedirect(registry).fetch(request)) is ANSWER
    assert registry.requests == [request]


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ("repository:busybox:pull", "repository:library/busybox:pull"),
        ("repository:busybox:pull,push", "repository:library/busybox:pull,push"),
        ("repository(plugin):busybox:pull", "repository(plugin):library/busybox:pull"),
        ("repository:library/busybox:pull", "repository:library/busybox:pull"),
        ("repository:me/busybox:pull", "repository:me/busybox:pull"),
        ("repository::pull", "repository::pull"),
        ("registry:catalog:*", "registry:catalog:*"),
        ("aws", "aws"),
    ],
)
def test_scopes_are_completed_as_names_are(scope: str, asked: str) -> None:
    """Scopes of repositories name them as the registry does; other scopes stay."""
    registry = FakeRegistry(ANSWER)
    now(ScopeRewrite(registry, complete_short_name).token(TokenRequest.parse([("scope", scope)])))
    assert [str(s) for request in registry.token_requests for s in request.scopes] == [asked]


def test_scopes_of_one_repository_are_merged() -> None:
    """A token for both of its names is a token for it; other parameters stay."""
    registry = FakeRegistry(ANSWER)
    both = [("scope", "repository:busybox:pull repository:library/busybox:pull"), ("account", "me")]
    now(ScopeRewrite(registry, complete_short_name).token(TokenRequest.parse(both)))
    assert registry.token_requests == [
        TokenRequest.parse([("scope", "repository:library/busybox:pull"), ("account", "me")])
    ]


@pytest.mark.parametrize("namespace", ["docker.io", "Docker.IO", "index.docker.io"])
def test_a_client_may_name_the_registry_by_ns(namespace: str) -> None:
    """By any of its names; the answer repeats it, and the upstream does not see it."""
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(Tags(OTHER))
    answer = now(
        NamespaceFilter(registry, ["docker.io", "Index.Docker.io"]).fetch(
            evolve(request, namespace=namespace)
        )
    )
    assert registry.requests == [request]
    assert answer == evolve(ANSWER, headers=(("ETag", "x"), ("OCI-Namespace", namespace)))


@pytest.mark.parametrize("namespace", ["ghcr.io", "", "docker.io.example.com", "docker.io\r\nX: y"])
def test_another_registry_in_ns_is_refused(namespace: str) -> None:
    """The registry is not asked, and the message does not repeat the client's text."""
    registry = FakeRegistry(ANSWER)
    with pytest.raises(NameUnknown) as caught:
        now(NamespaceFilter(registry, ["docker.io"]).fetch(RegistryRequest(Tags(OTHER), namespace=namespace)))
    assert (caught.value.status, registry.requests) == (404, [])
    assert "docker.io" in str(caught.value)
    assert "X: y" not in str(caught.value)


PREFIXES = {
    "bitnami": "bitnamilegacy",
    "bitnami/redis": "redis/redis",
    "bitnamilegacy": "elsewhere",
    "a/b": "c",
}
REWRITTEN = [
    ("bitnami/nginx", "bitnamilegacy/nginx"),
    ("bitnami/redis", "redis/redis"),
    ("bitnami/redis/x", "redis/redis/x"),
    ("bitnami/redis2", "bitnamilegacy/redis2"),
    ("bitnami", "bitnamilegacy"),
    ("bitnami2/nginx", "bitnami2/nginx"),
    ("me/bitnami/nginx", "me/bitnami/nginx"),
    ("bitnamilegacy/nginx", "elsewhere/nginx"),
    ("a/b", "c"),
    ("a", "a"),
    ("a/bc", "a/bc"),
]
rewritten = pytest.mark.parametrize(("name", "other"), REWRITTEN)


@rewritten
@of_a_repository
def test_prefixes_are_rewritten(target: Callable[[Repository], Target], name: str, other: str) -> None:
    """Whole components, once, by the longest match; everything else is unchanged."""
    registry = FakeRegistry(ANSWER)
    request = RegistryRequest(
        target(Repository(name)), query=(("n", "2"),), credentials=Credentials.bearer("t")
    )
    assert now(NameRewrite(registry, partial(rewrite_prefix, prefixes=PREFIXES)).fetch(request)) is ANSWER
    assert registry.requests == [evolve(request, target=target(Repository(other)))]


@rewritten
def test_prefixes_are_rewritten_in_scopes_of_repositories(name: str, other: str) -> None:
    registry = FakeRegistry(ANSWER)
    asked = f"repository:{name}:pull repository(plugin):{name}:pull registry:{name}:* {name}"
    tokens = ScopeRewrite(registry, lambda repository: rewrite_prefix(repository, PREFIXES))
    now(tokens.token(TokenRequest.parse([("scope", asked)])))
    (request,) = registry.token_requests
    assert [str(scope) for scope in request.scopes] == [
        f"repository:{other}:pull",
        f"repository(plugin):{other}:pull",
        f"registry:{name}:*",
        name,
    ]


@pytest.mark.parametrize("host", ["docker.mirror.example", "mirror.example"])
def test_clients_see_their_own_names(host: str) -> None:
    """In challenges and next pages; short names are completed before they are rewritten."""
    internet = Internet()
    house = House(
        internet, upstreams={"docker": {"rewrite": {"old": "library", "library/moved": "old/gone"}}}
    )
    path = "/v2/old/busybox/manifests/latest"
    assert house.pull(host, path)["Docker-Content-Digest"] == internet.busybox
    for challenge in house.get("docker.mirror.example", path).lines("WWW-Authenticate"):
        assert 'scope="repository:old/busybox:pull"' in challenge
    page = Reply(
        200, b'{"tags":["1"]}', (("Link", '</v2/library/busybox/tags/list?n=1&last=1>; rel="next"'),)
    )
    internet.reply(HUB, "/v2/library/busybox/tags/list", page)
    assert house.get(host, "/v2/old/busybox/tags/list?n=1")["Link"] == (
        '</v2/old/busybox/tags/list?n=1&last=1>; rel="next"'
    )
    house.get(host, "/v2/moved/manifests/latest")
    assert internet.seen[-1].path in ("/v2/old/gone/manifests/latest", "/token")


@pytest.mark.parametrize(("name", "status"), [("old/busybox", 200), ("library/busybox", 200), ("old/x", 403)])
def test_rules_apply_to_rewritten_names(name: str, status: int) -> None:
    docker = {"rewrite": {"old": "library"}, "allow": ["library/busybox"]}
    house = House(Internet(), upstreams={"docker": docker})
    assert house.get("mirror.example", f"/v2/{name}/manifests/latest").status == status


class TestWrites:
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda writes: WriteNameRewrite(writes, complete_short_name),
            lambda writes: WriteNamespaceFilter(writes, ["docker.io"]),
            lambda writes: WriteRuleFilter(writes, PullRules("u", [], [])),
            lambda writes: WriteMetrics(writes, "u", Metrics(CollectorRegistry())),
        ],
    )
    def test_writes_are_passed_on(self, wrap: Callable[[IWritableRegistry], IWritableRegistry]) -> None:
        origin = Origin()
        writes = wrap(origin)
        assert verifyObject(IWritableRegistry, writes)
        write = Write("PUT", Manifest(OFFICIAL, Tag("1")), credentials=Credentials.bearer("t"))
        assert now(writes.write(write, json_body(b"{}"))).status == 201
        assert Tag("1").name in origin.shelf(str(OFFICIAL)).tags


@pytest.mark.parametrize("failure", [ManifestUnknown("no such tag"), Unreachable("docker cannot be reached")])
@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("reg/team/app", "; reg is the name of an upstream: its images are at lan_5000/team/app here"),
        ("hub/team/app", ""),
        ("other/team/app", ""),
        ("reg", ""),
    ],
)
def test_a_failed_pull_below_the_name_of_an_upstream_has_a_hint(
    failure: RegistryError, path: str, hint: str
) -> None:
    """Such a name may be one at the default registry, too, and another request may share the error."""
    hub = FakeRegistry(type(failure)(failure.summary))
    registries = {"docker.io": hub, "lan_5000": FakeRegistry(ANSWER)}
    router = RegistryRouter(registries, hub, {"hub": "docker.io", "reg": "lan_5000"})
    request = RegistryRequest(Manifest(Repository(path), Tag("1")))
    for _ in range(2):
        with pytest.raises(type(failure)) as raised:
            now(router.fetch(request))
        assert raised.value.summary == str(raised.value) == f"{failure.summary}{hint}"
