"""Names of repositories, and paths of requests: what they ask for, and what is asked upstream instead."""

from __future__ import annotations

import string
from collections.abc import Callable
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    RegistryError,
    TagInvalid,
)
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
    find_repository,
    parse_reference,
    parse_target,
    repository_of,
)
from dockmirror.oci.token import Scope

from ..values import ODD_NAMES, attempt, repositories, tags, targets

TAGS = ["latest", "v1.0-rc_1", "_", "0", "A.B-C", "a" * 128, "sha256-" + "0" * 64]
BAD_NAMES = [
    *("", "/", "a/", "/a", "a//b", "A", "a/B", "a.", ".a", "..", "../a", "a/../b", "a/.", "a..b", "a-"),
    *("a___b", "-a", "_a", "a._b", "a:b", "a@b", "a b", "a\n", "a\x00", "a%2fb", "é", "a/é", "\uff41"),
    *("a\\b", "a" * 256, "a/" * 127 + "aa"),
]
BAD_TAGS = ["", ".a", "-a", "a" * 129, "a/b", "a b", "a\n", "a\x00", "é", "a:b", "a@b", "a%20"]
DIGEST = Digest("sha256", "0" * 64)
ODD_PATHS = st.binary() | st.text("v2/ab.%20eEfFmanifestsblobtaglr:\x00\x7fé", max_size=60).map(str.encode)


@pytest.mark.parametrize(
    ("parse", "name"), [(Repository.parse, name) for name in ODD_NAMES] + [(Tag.parse, name) for name in TAGS]
)
def test_names_are_accepted(parse: Callable[[str], Repository | Tag], name: str) -> None:
    """The grammar knows no reserved words."""
    assert parse(name).name == name


@pytest.mark.parametrize(
    ("parse", "error", "name"),
    [(Repository.parse, NameInvalid, name) for name in BAD_NAMES]
    + [(Tag.parse, TagInvalid, name) for name in BAD_TAGS],
)
def test_invalid_names_are_rejected(
    parse: Callable[[str], object], error: type[RegistryError], name: str
) -> None:
    """Each kind of name has its own error, with status 400."""
    with pytest.raises(error) as caught:
        parse(name)
    assert caught.value.status == 400


def test_a_colon_makes_it_a_digest() -> None:
    """Tags have none: what has one is a digest, or is wrong as such."""
    assert parse_reference(f"sha256:{'0' * 64}") == Digest("sha256", "0" * 64)
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:0")


@given(repositories)
def test_a_name_has_a_first_part_and_a_rest(repository: Repository) -> None:
    """Put together they are the name; one of a single component has no rest."""
    assert "/" not in repository.first
    assert "/".join(filter(None, (repository.first, repository.rest))) == repository.name


@given(tags, tags, repositories, repositories)
def test_they_have_an_order(tag: Tag, other_tag: Tag, one: Repository, other: Repository) -> None:
    """Repositories and tags sort by name, as registries list them."""
    assert (tag < other_tag) is (tag.name < other_tag.name)
    assert (one < other) is (one.name < other.name)


def escaped(path: str) -> bytes:
    """Return the path with every letter and digit percent-encoded."""
    return "".join(
        f"%{ord(c):02X}" if c in string.ascii_letters + string.digits else c for c in path
    ).encode()


def refused(path: bytes) -> int:
    with pytest.raises(RegistryError) as caught:
        parse_target(path)
    return caught.value.status


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_routed_rightly(name: str) -> None:
    """The endpoint is what stands at the end, whatever words the name is made of."""
    repository = Repository(name)
    path = f"/v2/{name}".encode()
    assert parse_target(path + b"/manifests/latest") == Manifest(repository, Tag("latest"))
    assert parse_target(path + b"/manifests/" + str(DIGEST).encode()) == Manifest(repository, DIGEST)
    assert parse_target(path + b"/blobs/" + str(DIGEST).encode()) == Blob(repository, DIGEST)
    assert parse_target(path + b"/referrers/" + str(DIGEST).encode()) == Referrers(repository, DIGEST)
    assert parse_target(path + b"/tags/list") == Tags(repository)


def test_tags_may_have_the_names_of_endpoints() -> None:
    """A tag ``list`` of a repository ``x/tags`` is not the list of the tags of ``x``."""
    assert parse_target(b"/v2") == parse_target(b"/v2/") == Ping()
    assert parse_target(b"/v2/x/tags/manifests/list") == Manifest(Repository("x/tags"), Tag("list"))
    assert parse_target(b"/v2/x/manifests/tags/list") == Tags(Repository("x/manifests"))
    assert parse_target(b"/v2/x/manifests/manifests") == Manifest(Repository("x"), Tag("manifests"))


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/", b"v2/", b"//v2/", b"/v2//", b"/v1/", b"/v3/", b"/V2/", b"/v2/x", b"/v2/_catalog/"),
        *(b"/v2/tags/list", b"/v2/manifests/latest", b"/v2/x/tags", b"/v2/x/tags/list/", b"/v2/x/tags/lists"),
        *(b"/v2/x/blobs/uploads/", b"/v2/x/y/z", b"/v2/x/Manifests/latest"),
        *(b"/v2/extensions/v2/x/signatures",),
        *(b"/v2/x/manifests/latest/", b"http://registry.example/v2/", b"/p/v2/x/manifests/latest"),
        *(b"/v2%2F", b"/v2%2Fx/manifests/latest", b"/v2/x%2Fmanifests%2Flatest", b"/v2/x/manifests%2Flatest"),
    ],
)
def test_an_unknown_path_is_not_found(path: bytes) -> None:
    assert refused(path) == 404


@pytest.mark.parametrize(
    "name",
    [
        *(b"", b"/", b"a//b", b"..", b"a/..", b"../a", b"A", b"a%2Fb", b"a%2fb", b"library%2Fbusybox"),
        *(b"%2e%2e", b"%2E%2e/a", b"a%00", b"a\x00b", b"a%0Ab", b"a%C3%A9", "é".encode(), b"a%252Fb", b"a%"),
        *(b"a%2", b"a%zz", b"a+b", b"a%20b", b"a;b", b"a%3Fb", b"a%23b", b"a\\b", b"a%5Cb", b"_catalog"),
        *(b"a" * 256, b"a/" * 200),
    ],
)
def test_no_escape_makes_a_name(name: bytes) -> None:
    """An escaped slash is no slash; dots, NUL, controls, other alphabets, overlong names are no name's."""
    for endpoint in (b"/manifests/latest", b"/tags/list", b"/blobs/" + str(DIGEST).encode()):
        assert refused(b"/v2/" + name + endpoint) == 400


@pytest.mark.parametrize(
    "last",
    [
        *(b"", b"..", b"%2e%2e", b"a%2Fb", b"a%00", b"a%3Ab", b"sha256:00", b"%C3%A9", b"a" * 129),
        b"a%0d%0aX:%20y",
    ],
)
def test_no_escape_makes_a_reference(last: bytes) -> None:
    """Escapes that decode to neither tag nor digest are rejected."""
    assert refused(b"/v2/x/manifests/" + last) == 400
    assert refused(b"/v2/x/blobs/" + last) == 400
    assert refused(b"/v2/x/referrers/" + last) == 400
    assert refused(b"/v2/x/blobs/latest") == refused(b"/v2/x/referrers/latest") == 400


@given(targets)
def test_escapes_of_plain_characters_mean_the_same(target: Target) -> None:
    """RFC 3986, 6.2.2.2: an unreserved character may be written so; what is asked upstream is plain."""
    assert parse_target(escaped(str(target))) == target


@given(ODD_PATHS)
def test_no_path_does_worse_than_being_refused(path: bytes) -> None:
    """Any path is rejected, or keeps its slashes: none is hidden in a segment."""
    target = attempt(parse_target, path)
    if isinstance(target, RegistryError):
        assert target.status in (400, 404)
        return
    assert target == Ping() or str(target).count("/") == path.count(b"/")
    assert parse_target(str(target).encode()) == target


@given(st.binary(max_size=8).filter(lambda inserted: b"/" not in inserted), st.integers(0, 40), targets)
def test_what_is_inserted_stays_in_its_segment(inserted: bytes, at: int, target: Target) -> None:
    """No bytes but slashes add to a path's structure."""
    path = str(target).encode()
    path = path[:at] + inserted + path[at:]
    parsed = attempt(parse_target, path)
    if isinstance(parsed, RegistryError):
        assert parsed.status in (400, 404)
    else:
        assert str(parsed).count("/") == path.count(b"/")


@pytest.mark.parametrize(
    ("target", "unknown", "scope"),
    [
        (Ping(), NameUnknown, None),
        (Catalog(), NameUnknown, "registry:catalog:*"),
        (Manifest(Repository("x/y"), Tag("a")), ManifestUnknown, "repository:x/y:pull"),
        (Blob(Repository("x/y"), DIGEST), BlobUnknown, "repository:x/y:pull"),
        (Tags(Repository("x/y")), NameUnknown, "repository:x/y:pull"),
        (Referrers(Repository("x/y"), DIGEST), NameUnknown, "repository:x/y:pull"),
    ],
)
def test_a_target_knows_what_it_takes(
    target: Target, unknown: type[RegistryError], scope: str | None
) -> None:
    """A target knows the scope that it needs, and its error if it is missing."""
    assert target.unknown is unknown
    assert target.scope == (None if scope is None else Scope.parse(scope))


@given(
    targets, st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text("ab&=?#/ +%é")))
)
def test_an_upstream_is_asked_for_what_was_parsed(target: Target, query: list[tuple[str, str]]) -> None:
    """The path, and a list's own parameters as they were meant; nothing of it can become structure."""
    path, mark, rest = RegistryRequest(target, query=tuple(query)).path_and_query().partition("?")
    assert bool(mark) is bool(query)
    assert path == str(target)
    assert parse_qsl(rest, keep_blank_values=True) == query
    assert rest.isascii()
    assert not set(rest) & set(" #?/")


@given(targets, repositories)
def test_the_same_may_be_asked_of_another_repository(target: Target, other: Repository) -> None:
    """All else stays; where no repository is meant, everything does."""
    request = RegistryRequest(target, head=True, accept=("a/b",), namespace="docker.io")
    renamed = request.for_repository(other)
    if repository_of(target) is None:
        assert renamed == request
    else:
        assert repository_of(renamed.target) == other
        assert renamed.for_repository(Repository("x")) == request.for_repository(Repository("x"))


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        (b"/v2/a/b/manifests/latest", "a/b"),
        (b"/v2/a/tags/list", "a"),
        (b"/v2/a/%2e%2e/b/blobs/x", "a/../b"),
        (b"/v2//a/referrers/", "/a"),
        (b"/v2/token", None),
        (b"/v2/a/b/c/d", None),
        (b"/blobs/v2/a/blobs/x", None),
    ],
)
def test_the_repository_of_a_path_need_not_be_valid(path: bytes, repository: str | None) -> None:
    """Nor does what follows it."""
    assert find_repository(path) == repository
