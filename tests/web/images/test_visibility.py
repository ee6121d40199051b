"""Private names are shown to nobody who may not see them: the pages of the mirror's own host.

A store holds repositories that different clients were given.  Each page that the host has is asked for, and
nothing on it may tell of a repository that the client may not see.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from dockmirror.http.server import HttpSite
from dockmirror.http.server_request import ServerRequest
from dockmirror.middleware.filters import PullRules
from dockmirror.oci.digest import Digest
from dockmirror.oci.request import InRepository, Repository, Tag
from dockmirror.pullthrough.authorization import (
    PUBLIC_TTL,
    REREAD_AFTER,
    Extent,
    PublicRepositories,
    imported_document,
)
from dockmirror.store import store_files
from dockmirror.store.local_store import LocalDocumentStore
from dockmirror.store.store_index import HeldBytes, StoreIndex, StoreSnapshot
from dockmirror.store.tag_history import LocalTagHistory
from dockmirror.system.networks import NetworkAccess
from dockmirror.web.images.catalog import ImageCatalog, PullFigures
from dockmirror.web.images.images_resource import (
    HIDDEN_TTL,
    ClientViewer,
    ImagesContext,
    ImagesResource,
    VisibleUpstream,
)
from dockmirror.web.respond import NetworkFilter, RequestFilter
from tests.archive.packing import manifest
from tests.cli.shop import USED, Shop
from tests.house import Answer, House
from tests.internet import Internet
from tests.stacks import now
from tests.store.threads import inline
from tests.web.operations import page_text

NOW = USED + 100
LAYER, CONFIG = b"a layer that all have" * 10, b"{}"
IMAGE = manifest(CONFIG, LAYER)
OLD_IMAGE = manifest(CONFIG, b"an older layer")
PUBLIC, PRIVATE, ACCOUNT, IMPORTED, STALE, DENIED, UNKNOWN = (
    "docker.io/library/public", "docker.io/team/secret-project", "docker.io/company/own-app",
    "docker.io/site/brought",
    "docker.io/library/once-public", "docker.io/library/denied", "gone.example/left/over",
)  # fmt: skip
ALL = (PUBLIC, PRIVATE, ACCOUNT, IMPORTED, STALE, DENIED, UNKNOWN)


class _User(RequestFilter):
    """Takes the user's name from a header, as a login would."""

    def check(self, request: ServerRequest) -> None:
        name = request.getHeader("X-User")
        if name and request.admitted_client is not None:
            request.admitted_client = evolve(request.admitted_client, user=name)


class _CountedRules(PullRules):
    """Rules that record the repositories that they are asked about."""

    checked: list[str]

    def check(self, target: InRepository) -> None:
        self.checked.append(str(target.repository))
        super().check(target)


class _UnsummedSnapshot(StoreSnapshot):
    """Refuses to sum up all repositories, which takes seconds for a large store."""

    @property
    def by_repository(self) -> Mapping[str, HeldBytes]:
        raise AssertionError


class _UnsummedCatalog(ImageCatalog):
    def snapshot(self) -> StoreSnapshot:
        held = super().snapshot()
        return _UnsummedSnapshot(held.sizes, held.repositories, held.other_bytes)


class Front:
    """The pages of the mirror's own host, over two entries of one registry: without and with an account."""

    def __init__(self, root: Path) -> None:
        self.shop = Shop(root)
        self.clock = Clock()
        self.clock.advance(NOW)
        for name in ALL:
            self.shop.image(Repository(name), "1", IMAGE, LAYER, CONFIG)
        self.reads = 0

        def count(call: Callable[[], Any]) -> Any:
            self.reads += 1
            return inline(call)

        self.documents = LocalDocumentStore(root, self.clock, count)
        self.is_private_network = False
        self.public = self._public("hub")
        self.account = self._public("company+1234")
        given = Extent.CONTENTS
        for name in (PUBLIC, DENIED, STALE):
            now(self.public.confirm(_rest(name), given))
        now(self.account.confirm(_rest(ACCOUNT), given))
        for digest in (None, Digest.of(IMAGE)):
            now(self.documents.write(imported_document("hub", _rest(IMPORTED), digest), b""))
        self._write_old_confirmation()
        rules = _CountedRules("upstreams.hub", (), ("library/denied", "library/public:internal-*"))
        self.checked = rules.checked = []
        open_rules = PullRules("upstreams.company", (), ())
        upstreams = [
            VisibleUpstream("hub", "docker.io", self.public, lambda _: False, rules),
            VisibleUpstream("company", "docker.io", self.account, lambda _: True, open_rules),
        ]

        def find_viewer(request: ServerRequest) -> ClientViewer:
            client = request.admitted_client
            return ClientViewer(upstreams, is_user=client is not None and client.user is not None)

        context = ImagesContext(
            _UnsummedCatalog(StoreIndex(root)),
            PullFigures(None, self.clock.seconds),
            LocalTagHistory(root, self.clock, inline),
            inline,
            self.clock,
            find_viewer,
            lambda _, image: f"mirror/{image}",
        )
        self._front = House(Internet())
        pages = NetworkFilter(_User(ImagesResource(context)), NetworkAccess())
        self._front.site = HttpSite(pages, self.clock)

    def get(self, path: str, user: str = "") -> Answer:
        headers = [f"X-User: {user}"] if user else []
        return self._front.connect().ask("GET", "mirror", path, *headers).answer

    def seen(self, user: str = "") -> set[str]:
        """Return the repositories that the list shows, after a check that no page tells of any other."""
        listed = page_text(self.get("/images/", user).body)
        seen = {name for name in ALL if name in listed}
        for name in ALL:
            for path in (f"/images/{name}", f"/images/{name}:1", f"/images/{name}@{Digest.of(IMAGE)}"):
                answer = self.get(path, user)
                assert answer.status == (200 if name in seen else 404), path
                assert not [other for other in ALL if other not in seen and other.encode() in answer.body], (
                    path
                )
            search = self.get(f"/images/?q={name}", user)
            assert (name in page_text(search.body).replace(f"q={name}", "")) == (name in seen)
        return seen

    def _public(self, partition: str) -> PublicRepositories:
        return PublicRepositories(
            lambda _: partition, self.documents, self.clock, lambda _: not self.is_private_network
        )

    def _write_old_confirmation(self) -> None:
        old = str(NOW - PUBLIC_TTL - 1).encode()
        now(self.documents.write(f"public/hub/{_rest(STALE)}", old))
        self.public = self._public("hub")


def _rest(name: str) -> Repository:
    return Repository(name.partition("/")[2])


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def test_everybody_sees_what_everybody_is_given(front: Front) -> None:
    """Public content of the last day and what the operator has imported, if no rule denies it."""
    assert front.seen() == {PUBLIC, IMPORTED}


def test_users_see_also_what_the_mirrors_accounts_are_given(front: Front) -> None:
    """But not what some client was given for credentials of its own."""
    assert front.seen("alice") == {PUBLIC, IMPORTED, ACCOUNT}


def test_a_page_tells_the_same_of_a_private_image_as_of_none(front: Front) -> None:
    """Byte by byte, and with the same headers."""
    for end in ("", ":1", ":2", f"@{Digest.of(IMAGE)}"):
        private, none = (
            front.get(f"/images/docker.io/team/{name}{end}") for name in ("secret-project", "no-such-name1")
        )
        assert (private.status, private.headers, private.body) == (none.status, none.headers, none.body)
    private, none = (front.get(f"/images/?q={name}") for name in ("secret-project", "no-such-name12"))
    assert private.body.replace(b"secret-project", b"no-such-name12") == none.body


def test_a_private_image_takes_as_many_reads_as_none(front: Front) -> None:
    """Or the time would tell."""
    reads = []
    for name in ("secret-project", "no-such-name1"):
        before = front.reads
        front.get(f"/images/docker.io/team/{name}:1")
        reads.append(front.reads - before)
    assert reads[0] == reads[1] > 0


def test_a_layer_is_shared_only_with_what_the_client_sees(front: Front) -> None:
    text = page_text(front.get(f"/images/{PUBLIC}:1").body)
    assert f"held {IMPORTED}" in text
    assert "and 1 more" not in text
    assert f"held {ACCOUNT} {IMPORTED}" in page_text(front.get(f"/images/{PUBLIC}:1", "alice").body)


def test_a_repository_that_is_private_now_disappears(front: Front) -> None:
    """When the upstream refuses the mirror's anonymous request, and a day after it was last public."""
    now(front.public.refuse(_rest(PUBLIC)))
    front.clock.advance(REREAD_AFTER)
    assert front.seen() == {IMPORTED}


def test_a_repository_that_nobody_has_asked_about_for_a_day_disappears(front: Front) -> None:
    front.clock.advance(PUBLIC_TTL)
    assert front.seen() == {IMPORTED}
    assert front.seen("alice") == {IMPORTED}


def test_what_the_mirrors_own_network_is_given_is_not_public(front: Front) -> None:
    """An upstream in a private network may trust the mirror's address."""
    front.is_private_network = True
    assert front.seen() == {IMPORTED}


def test_only_the_imported_image_of_a_repository_is_shown(front: Front) -> None:
    """Others of it may have been fetched for one client alone."""
    front.shop.image(Repository(IMPORTED), "private", OLD_IMAGE, b"an older layer")
    front.clock.advance(2)
    assert "private" not in page_text(front.get(f"/images/{IMPORTED}").body)
    assert front.get(f"/images/{IMPORTED}:private").status == 404
    assert front.get(f"/images/{IMPORTED}@{Digest.of(OLD_IMAGE)}").status == 404
    assert front.get(f"/images/{IMPORTED}:1").status == 200


def test_a_tag_that_the_rules_deny_is_not_shown(front: Front) -> None:
    store_files.set_tag(front.shop.root, Repository(PUBLIC), Tag("internal-1"), Digest.of(IMAGE), USED)
    front.clock.advance(2)
    assert "internal" not in page_text(front.get(f"/images/{PUBLIC}").body)
    assert front.get(f"/images/{PUBLIC}:internal-1").status == 404


def test_a_page_of_tags_tells_of_no_other_tag(front: Front) -> None:
    """Neither by its link to the next page nor by its count; each page is full."""
    names = [*(f"internal-{number:02}" for number in range(40)), *(f"v{number:02}" for number in range(21))]
    for name in names:
        store_files.set_tag(front.shop.root, Repository(PUBLIC), Tag(name), Digest.of(IMAGE), USED)
    front.clock.advance(2)
    page = front.get(f"/images/{PUBLIC}").body
    assert b"internal" not in page
    assert "Tags: 22;" in page_text(page)
    assert b"?after=v18" in page
    assert "v19 sha256" in page_text(front.get(f"/images/{PUBLIC}?after=v18").body)


def test_a_list_checks_only_what_it_shows(front: Front) -> None:
    """Not what comes before it; and what the client may not see is not checked for each page again."""
    front.get("/images/?after=docker.io/site")
    assert front.checked[0] == str(_rest(IMPORTED))
    front.checked.clear()
    for _ in range(3):
        assert PUBLIC in page_text(front.get("/images/").body)
    assert front.checked.count(str(_rest(PRIVATE))) <= 1
    assert front.checked.count(str(_rest(PUBLIC))) >= 3


def test_a_repository_that_is_public_now_appears(front: Front) -> None:
    """On its own page at once, and in lists soon."""
    assert PRIVATE not in front.seen()
    now(front.public.confirm(_rest(PRIVATE), Extent.CONTENTS))
    assert front.get(f"/images/{PRIVATE}").status == 200
    front.clock.advance(HIDDEN_TTL)
    assert PRIVATE in front.seen()


def test_clients_of_the_own_host_have_no_actions(front: Front) -> None:
    body = front.get(f"/images/{PUBLIC}:1", "alice").body
    assert b"action" not in body.partition(b"</style>")[2]
    assert front.get(f"/images/{PUBLIC}:1?action=remove").status == 200
    assert front.get("/images/", "alice").body.count(b"<form") == 1
