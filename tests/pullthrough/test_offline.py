"""A registry that is not asked, over a store on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from dockmirror.interfaces import Answer, IUpstream
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import RegistryError
from dockmirror.oci.media import OCI_INDEX
from dockmirror.oci.request import RegistryRequest, Repository, Tag, parse_target
from dockmirror.oci.token import MARKER, TokenRequest
from dockmirror.pullthrough.authorization import Extent, imported_document
from dockmirror.pullthrough.offline import (
    INCOMPLETE,
    NOT_HELD,
    LastKnownPublic,
    OfflineRegistry,
    OfflineUpstream,
    paginate,
)
from dockmirror.store import pins
from dockmirror.store.eviction.eviction import Sweep
from dockmirror.store.eviction.store_budget import Budget
from dockmirror.store.held_images import StoreListing
from dockmirror.store.local_store import LocalStore
from dockmirror.store.pins import Pin

from ..answering import now, watch
from ..cli.shop import AMD, BASE, CONFIG, INDEX, LAYER, NGINX, OTHER, Shop, stocked
from ..stacks import bytes_of
from ..store.threads import inline
from .faulty import LeavingDocuments, SlowContents
from .origin import user

NAME = "library/nginx"
YEAR = 365 * 86_400.0
SIGNATURE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": json.loads(AMD)["config"],
        "layers": [],
        "subject": {"digest": str(Digest.of(AMD)), "size": len(AMD)},
        "annotations": {"by": "alice"},
    }
).encode()


class Offline:
    """An offline registry, and what it knows to be public."""

    def __init__(self, root: Path, public: bool | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000.0)
        self.reads = 0

        def count(call: Callable[[], Any]) -> Any:
            self.reads += 1
            return inline(call)

        self.store = LocalStore.open(root, self.clock, count, lambda _: None)
        self.public = LastKnownPublic(
            lambda _: "docker",
            self.store.documents,
            self.clock,
            public is True,
            lambda _: public is not False,
        )
        listing = StoreListing(root, inline)
        self.registry = OfflineRegistry(
            "docker.io", self.store.contents, self.store.tags, listing, self.public, self.clock
        )

    def publish(self, name: str = NAME) -> None:
        """Record that the upstream gave the repository to everybody."""
        now(self.public.confirm(Repository(name), Extent.CONTENTS))

    def say_imported(self, *contents: bytes, name: str = NAME) -> None:
        for digest in (None, *map(Digest.of, contents)):
            now(self.store.documents.write(imported_document("docker", Repository(name), digest), b"1"))

    def ask(self, path: str, **details: Any) -> Answer:
        return now(self.registry.fetch(RegistryRequest(parse_target(f"/v2/{path}".encode()), **details)))

    def get(self, path: str, **details: Any) -> bytes:
        return bytes_of(self.ask(path, **details).body)

    def json(self, path: str, *query: tuple[str, str]) -> Any:
        return json.loads(self.get(path, query=query))

    def refused(self, path: str, **details: Any) -> RegistryError:
        with pytest.raises(RegistryError) as refused:
            self.ask(path, **details)
        assert refused.value.status == 404
        return refused.value


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return stocked(tmp_path)


@pytest.fixture
def offline(shop: Shop) -> Offline:
    """A registry whose repository of nginx was public a year ago."""
    offline = Offline(shop.root)
    offline.publish()
    offline.clock.advance(YEAR)
    return offline


def test_a_blob_that_is_open_waits_for_nothing(shop: Shop, offline: Offline) -> None:
    """Its file would be left open if the client left meanwhile."""
    documents, clock = LeavingDocuments(offline.clock), offline.clock
    public = LastKnownPublic(lambda _: "docker", documents, clock, False, lambda _: True)
    now(public.confirm(Repository(NAME), Extent.CONTENTS))
    contents = SlowContents(shop.root, clock, inline)
    listing = StoreListing(shop.root, inline)
    registry = OfflineRegistry("docker.io", contents, offline.store.tags, listing, public, clock)
    request = RegistryRequest(parse_target(f"/v2/{NAME}/blobs/{Digest.of(LAYER)}".encode()))
    (answer,) = watch(registry.fetch(request))
    assert isinstance(answer, Answer)
    assert bytes_of(answer.body) == LAYER


def test_it_is_an_upstream(offline: Offline) -> None:
    assert verifyObject(IUpstream, offline.registry)
    assert verifyObject(IUpstream, OfflineUpstream())


def test_what_was_public_stays_public(offline: Offline) -> None:
    """With and without credentials, which nobody can check, however long ago that was."""
    for credentials in (None, user("alice")):
        assert offline.get(f"{NAME}/manifests/latest", credentials=credentials) == INDEX
        assert offline.get(f"{NAME}/manifests/{Digest.of(AMD)}", credentials=credentials) == AMD
        assert offline.get(f"{NAME}/blobs/{Digest.of(LAYER)}", credentials=credentials) == LAYER
    answer = offline.ask(f"{NAME}/manifests/latest", head=True)
    assert (answer.body.descriptor.media_type, bytes_of(answer.body)) == (OCI_INDEX, b"")
    assert answer.cache is not None
    assert answer.cache.result.is_hit


def test_a_known_entity_tag_is_answered_with_304(offline: Offline) -> None:
    for path, data in (("manifests/latest", INDEX), (f"blobs/{Digest.of(LAYER)}", LAYER)):
        answer = offline.ask(f"{NAME}/{path}", if_none_match=f'"{Digest.of(data)}"')
        assert answer.status == 304


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("manifests/0", "MANIFEST_UNKNOWN"),
        (f"manifests/{Digest.of(b'nothing')}", "MANIFEST_UNKNOWN"),
        (f"blobs/{Digest.of(b'nothing')}", "BLOB_UNKNOWN"),
    ],
)
def test_a_miss_says_that_the_mirror_is_offline(offline: Offline, path: str, code: str) -> None:
    """Its code is that of the specification."""
    refused = offline.refused(f"{NAME}/{path}")
    assert (refused.code, str(refused)) == (code, NOT_HELD)


def test_an_unknown_repository_has_no_lists(offline: Offline) -> None:
    for path in ("library/absent/tags/list", f"library/absent/referrers/{Digest.of(AMD)}"):
        refused = offline.refused(path)
        assert (refused.code, str(refused)) == ("NAME_UNKNOWN", NOT_HELD)


def test_an_incomplete_image_is_refused_as_such(offline: Offline, shop: Shop) -> None:
    """A client would pull the rest in vain; no list has its tag."""
    shop.path(Digest.of(LAYER)).unlink()
    for reference in ("1.27", Digest.of(AMD), "latest"):
        assert str(offline.refused(f"{NAME}/manifests/{reference}")) == INCOMPLETE
    assert str(offline.refused(f"{NAME}/tags/list")) == NOT_HELD


def test_a_client_that_takes_other_media_types_gets_none(offline: Offline) -> None:
    offline.refused(f"{NAME}/manifests/latest", accept=("application/json",))


@pytest.mark.parametrize("public", [None, False])
def test_content_that_was_private_is_a_miss(shop: Shop, public: bool | None) -> None:
    """Its refusal is that of content which is not held."""
    offline = Offline(shop.root, public)
    paths = ("manifests/latest", f"manifests/{Digest.of(AMD)}", f"blobs/{Digest.of(LAYER)}", "tags/list")
    for path in paths:
        assert str(offline.refused(f"{NAME}/{path}", credentials=user("alice"))) == NOT_HELD
    assert offline.json("_catalog") == {"repositories": []}


def test_public_true_gives_everything_to_everybody(shop: Shop) -> None:
    offline = Offline(shop.root, public=True)
    assert offline.get(f"{NAME}/manifests/1.27") == AMD
    assert offline.json("_catalog") == {"repositories": [NAME]}


@pytest.mark.parametrize("is_imported", [True, False])
def test_an_eviction_leaves_pinned_images_to_clients(shop: Shop, is_imported: bool) -> None:
    """Although nobody has asked for them in months."""
    offline = Offline(shop.root)
    if is_imported:
        offline.say_imported(INDEX, AMD, BASE, CONFIG, LAYER)
    else:
        offline.publish()
    pins.add_pin(shop.root, Pin(NGINX, Tag("latest")))
    offline.clock.advance(YEAR)
    assert Sweep(shop.root, Budget(0)).run(0, offline.clock.seconds()) is not None
    assert offline.get(f"{NAME}/manifests/latest") == INDEX
    assert offline.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER
    assert offline.json("_catalog") == {"repositories": [NAME]}


def test_layers_are_served_as_long_as_their_manifests_are_in_use(shop: Shop) -> None:
    """Machines that have the layers ask for the manifests alone."""
    offline = Offline(shop.root)
    offline.say_imported(INDEX, AMD, BASE, CONFIG, LAYER)
    offline.clock.advance(YEAR)
    assert offline.get(f"{NAME}/manifests/latest") == INDEX
    assert Sweep(shop.root, Budget(0)).run(0, offline.clock.seconds()) is not None
    assert offline.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER


def test_a_refusal_that_came_later_counts(offline: Offline) -> None:
    now(offline.public.refuse(Repository(NAME)))
    offline.refused(f"{NAME}/manifests/latest")


@pytest.mark.parametrize("public", [None, False])
def test_imported_contents_are_public_and_no_others(shop: Shop, public: bool | None) -> None:
    """The other contents of the repository may have been fetched for one client."""
    offline = Offline(shop.root, public)
    offline.say_imported(AMD, CONFIG, BASE, LAYER)
    assert offline.get(f"{NAME}/manifests/1.27") == AMD
    assert offline.get(f"{NAME}/blobs/{Digest.of(LAYER)}") == LAYER
    offline.refused(f"{NAME}/manifests/latest")
    assert offline.json(f"{NAME}/tags/list") == {"name": NAME, "tags": ["1.27"]}
    assert offline.json("_catalog") == {"repositories": [NAME]}
    answer = offline.ask(f"{NAME}/blobs/{Digest.of(LAYER)}")
    assert answer.cache is not None
    assert not answer.cache.immutable  # once the registry is asked again, it decides


def test_tags_are_those_that_are_held(offline: Offline, shop: Shop) -> None:
    """In pages, if the client asks for them."""
    for tag in ("1.28", "1.26"):
        shop.image(NGINX, tag, AMD)
    path = f"{NAME}/tags/list"
    assert offline.json(path) == {"name": NAME, "tags": ["1.26", "1.27", "1.28", "latest"]}
    assert offline.json(path, ("n", "2"))["tags"] == ["1.26", "1.27"]
    page = offline.ask(path, query=(("n", "2"), ("last", "1.26")))
    assert page.next_page == (("n", "2"), ("last", "1.28"))
    assert offline.json(path, ("n", "2"), ("last", "1.28"))["tags"] == ["latest"]


def test_a_catalog_lists_the_public_repositories_of_its_registry(offline: Offline, shop: Shop) -> None:
    """Repositories of other registries are not in it."""
    shop.image(Repository("docker.io/team/app"), "1", AMD)
    shop.image(OTHER, "1", AMD)
    assert offline.json("_catalog") == {"repositories": [NAME]}
    offline.publish("team/app")
    assert offline.json("_catalog") == {"repositories": [NAME, "team/app"]}
    assert offline.json("_catalog", ("n", "1")) == {"repositories": [NAME]}


def test_only_the_names_on_a_page_are_checked(shop: Shop) -> None:
    """A page of a list of thousands costs no more than one of a short list."""
    manifests = [AMD + b" " * number for number in range(20)]
    offline = Offline(shop.root)
    for number, manifest in enumerate(manifests):
        shop.image(Repository(f"docker.io/team/app{number:02}"), "1", AMD)
        offline.say_imported(name=f"team/app{number:02}")
        shop.image(NGINX, f"0.{number:02}", manifest)
    offline.say_imported(*manifests)
    for path in ("_catalog", f"{NAME}/tags/list"):
        before = offline.reads
        offline.ask(path, query=(("n", "1"),))
        first = offline.reads - before
        offline.ask(path)
        assert first * 3 < offline.reads - before - first, path


def test_referrers_are_found_among_the_held_manifests(offline: Offline, shop: Shop) -> None:
    """A subject without any has an empty list."""
    path = f"{NAME}/referrers/{Digest.of(AMD)}"
    assert offline.json(path)["manifests"] == []
    shop.image(NGINX, "", SIGNATURE)
    answer = offline.ask(path)
    assert answer.body.descriptor.media_type == OCI_INDEX
    expected = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": str(Digest.of(SIGNATURE)),
        "size": len(SIGNATURE),
        "artifactType": "application/vnd.example.signature",
        "annotations": {"by": "alice"},
    }
    for _ in range(2):
        assert offline.json(path)["manifests"] == [expected]
    assert offline.json(f"{NAME}/referrers/{Digest.of(INDEX)}")["manifests"] == []


def test_referrers_can_be_filtered(offline: Offline, shop: Shop) -> None:
    """The answer says so."""
    shop.image(NGINX, "", SIGNATURE)
    for kind, count in (("application/vnd.example.signature", 1), ("other/type", 0)):
        query = (("artifactType", kind),)
        answer = offline.ask(f"{NAME}/referrers/{Digest.of(AMD)}", query=query)
        assert answer.headers == (("OCI-Filters-Applied", "artifactType"),)
        assert len(json.loads(bytes_of(answer.body))["manifests"]) == count


def test_only_imported_referrers_of_a_private_repository_are_listed(shop: Shop) -> None:
    shop.image(NGINX, "", SIGNATURE)
    offline = Offline(shop.root)
    offline.say_imported(AMD, CONFIG, BASE, LAYER)
    path = f"{NAME}/referrers/{Digest.of(AMD)}"
    assert offline.json(path)["manifests"] == []
    offline.clock.advance(120)
    offline.say_imported(SIGNATURE)
    assert len(offline.json(path)["manifests"]) == 1


def test_the_ping_demands_no_login(offline: Offline) -> None:
    """Tokens stand for no credentials, whatever the client sent for one."""
    assert offline.get("") == b"{}"
    for credentials in (None, user("alice")):
        answer = now(offline.registry.token(TokenRequest.parse([], credentials=credentials)))
        assert json.loads(bytes_of(answer.body))["token"] == MARKER


def test_the_empty_blob_is_given_to_everybody(shop: Shop) -> None:
    shop.blob(NGINX, b"")
    assert Offline(shop.root).get(f"library/other/blobs/{Digest.of(b'')}") == b""


@pytest.mark.parametrize(
    ("query", "page", "following"),
    [
        ((), ["a", "b", "c"], None),
        ((("last", "a"),), ["b", "c"], None),
        ((("n", "0"),), [], None),
        ((("n", "1"),), ["a"], (("n", "1"), ("last", "a"))),
        ((("n", "3"),), ["a", "b", "c"], None),
        ((("n", "1" * 5000),), ["a", "b", "c"], None),
        ((("n", "-1"),), ["a", "b", "c"], None),
        ((("n", "2"), ("last", "z")), [], None),
    ],
)
def test_pages(query: Any, page: list[str], following: Any) -> None:
    """A number that is none asks for everything."""
    assert paginate(["a", "b", "c"], query) == (page, following)


@pytest.mark.parametrize("path", ["", "_catalog", f"{NAME}/manifests/latest", f"{NAME}/tags/list"])
def test_an_offline_upstream_has_nothing(path: str) -> None:
    with pytest.raises(RegistryError) as refused:
        now(OfflineUpstream().fetch(RegistryRequest(parse_target(f"/v2/{path}".encode()))))
    assert refused.value.status == 404
    with pytest.raises(RegistryError):
        now(OfflineUpstream().token(TokenRequest()))
