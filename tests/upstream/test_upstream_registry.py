"""An upstream registry: its handshake, its lists."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import NameUnknown, Unauthorized, Unavailable
from tests.fakes import ENDLESS, Reply
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet
from tests.stacks import asked, bytes_of, now, upstream

JSON = (("Content-Type", "application/json"),)
TAGS = "/v2/library/busybox/tags/list"
REFERRERS = f"/v2/library/busybox/referrers/sha256:{'0' * 64}"
MANIFEST = "/v2/library/busybox/manifests/latest"


@pytest.fixture
def internet() -> Internet:
    """Docker Hub, open to everybody but at ``/v2/``."""
    internet = Internet()
    for path, body in ((TAGS, b'{"tags":[]}'), (REFERRERS, b'{"manifests":[]}'), ("/v2/_catalog", b"{}")):
        internet.reply(HUB, path, Reply(200, body, JSON))
    return internet


def fetch(internet: Internet, path: str, **details: Any) -> Answer:
    """Docker Hub's answer."""
    return now(upstream(internet.agent).fetch(asked(path, **details)))


def test_it_is_a_registry(internet: Internet) -> None:
    """To everything in front of it."""
    assert verifyObject(IRegistry, upstream(internet.agent))


class TestPing:
    """``/v2/``."""

    def test_anonymously_it_is_what_the_upstream_demands(self, internet: Internet) -> None:
        """Asked once for many."""
        registry = upstream(internet.agent)
        for _ in range(3):
            with pytest.raises(Unauthorized) as raised:
                now(registry.fetch(asked("/v2/")))
            assert raised.value.challenges[0].get("realm") == f"https://{AUTH}/token"
            assert raised.value.upstream_status == 401
        assert len(internet.seen) == 1

    def test_it_consents_where_nothing_is_demanded(self, internet: Internet) -> None:
        """With JSON, whatever the upstream's body."""
        answer = now(upstream(internet.agent, url="https://registry.k8s.io").fetch(asked("/v2/")))
        assert json.loads(bytes_of(answer.body)) == {}
        assert answer.upstream_status == 200

    @pytest.mark.parametrize("head", [True, False])
    def test_credentials_are_checked_by_the_upstream(self, internet: Internet, head: bool) -> None:
        """Each time: that is how a login checks a password."""
        registry = upstream(internet.agent)
        for authorization, status in (("Basic YTpi", 401), ("Bearer no", 401), ("Bearer yes", 200)):
            internet.reply(HUB, "/v2/", Reply(status, b"{}", JSON))
            request = asked("/v2/", credentials=Credentials(authorization), head=head)
            if status == 200:
                assert now(registry.fetch(request)).status == 200
            else:
                with pytest.raises(Unauthorized):
                    now(registry.fetch(request))
            assert (internet.seen[-1].authorization, internet.seen[-1].path) == (authorization, "/v2/")
        assert len(internet.seen) == 3


@pytest.mark.parametrize("path", [TAGS, REFERRERS, "/v2/_catalog"])
class TestList:
    """Lists of tags, of referrers, of repositories."""

    def test_a_list_is_passed_on(self, internet: Internet, path: str) -> None:
        """As it is."""
        answer = fetch(internet, path)
        assert (answer.status, answer.next_page, answer.upstream_status) == (200, None, 200)
        assert answer.body.descriptor.media_type == "application/json"
        assert answer.body.descriptor.digest is None
        assert bytes_of(answer.body).startswith(b"{")

    @pytest.mark.parametrize("kind", ["application/vnd.oci.image.index.v1+json", None])
    def test_its_type(self, internet: Internet, path: str, kind: str | None) -> None:
        """Is the upstream's, and JSON where it says none."""
        internet.reply(HUB, path, Reply(200, b"{}", (("Content-Type", kind),) if kind else ()))
        assert fetch(internet, path).body.descriptor.media_type == (kind or "application/json")

    def test_its_parameters_arrive(self, internet: Internet, path: str) -> None:
        """In order and properly written, whatever is in them."""
        fetch(internet, path, query=(("n", "10"), ("artifactType", "a/b+c d"), ("last", "")))
        assert internet.seen[0].url == f"https://{HUB}{path}?n=10&artifactType=a%2Fb%2Bc+d&last="

    @pytest.mark.parametrize(
        "link",
        [
            '</v2/x/tags/list?n=10&last=a%2Fb>; rel="next"',
            f"<https://{HUB}/v2/x?n=10&last=a%2Fb>;rel=next",
            '<?n=10&last=a%2Fb>; title="x"; rel="next"',
        ],
    )
    def test_the_next_page(self, internet: Internet, path: str, link: str) -> None:
        """Is known by its query."""
        internet.reply(HUB, path, Reply(200, b"{}", (*JSON, ("Link", '</>; rel="prev"'), ("Link", link))))
        assert fetch(internet, path).next_page == (("n", "10"), ("last", "a/b"))

    def test_a_long_list(self, internet: Internet, path: str) -> None:
        """Has no limit: it is not kept."""
        body = b'{"tags":[%b]}' % (b" " * 5_000_000)
        internet.reply(HUB, path, Reply(200, body, JSON, told=False))
        answer = fetch(internet, path)
        assert answer.body.descriptor.size is None
        assert len(bytes_of(answer.body)) == len(body)

    def test_a_head(self, internet: Internet, path: str) -> None:
        """Stays one, and tells the length."""
        answer = fetch(internet, path, head=True)
        assert [seen.method for seen in internet.seen] == ["HEAD"]
        assert answer.body.descriptor.size
        assert bytes_of(answer.body) == b""

    def test_a_condition(self, internet: Internet, path: str) -> None:
        """Is the upstream's to judge."""
        internet.reply(HUB, path, Reply(304, b"", (("ETag", '"x"'),)))
        answer = fetch(internet, path, if_none_match='"x"')
        assert (answer.status, answer.headers) == (304, (("ETag", '"x"'),))
        assert internet.seen[0].header("If-None-Match") == '"x"'

    def test_a_web_page(self, internet: Internet, path: str) -> None:
        """Is no list."""
        internet.reply(HUB, path, Reply(200, b"<html>", (("Content-Type", "text/html"),)))
        with pytest.raises(Unavailable, match="web page"):
            fetch(internet, path)
        internet.reply(HUB, path, ENDLESS.having(("Content-Type", "text/html")))
        with pytest.raises(Unavailable):
            fetch(internet, path)
        internet.agent.flush()
        assert len(internet.abandoned) == 1

    def test_what_is_not_there(self, internet: Internet, path: str) -> None:
        """Is an unknown repository; a 404 stays one, so that clients go on to a tag for referrers."""
        internet.reply(HUB, path, Reply(404))
        with pytest.raises(NameUnknown) as raised:
            fetch(internet, path)
        assert raised.value.status == 404


def test_what_filtered_the_referrers_travels(internet: Internet) -> None:
    """Otherwise a client filters them again."""
    told = ("OCI-Filters-Applied", "artifactType")
    internet.reply(HUB, REFERRERS, Reply(200, b"{}", (*JSON, told)))
    assert fetch(internet, REFERRERS).headers == (told,)


def test_credentials_reach_the_registry(internet: Internet) -> None:
    """As they are."""
    credentials = Credentials.basic(USER, PASSWORD)
    fetch(internet, TAGS, credentials=credentials)
    assert internet.seen[0].authorization == credentials.header
