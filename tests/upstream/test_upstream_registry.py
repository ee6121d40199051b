"""An upstream registry: ping and lists."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from dockmirror.interfaces import Answer, IRegistry
from dockmirror.oci.digest import Descriptor
from dockmirror.oci.errors import NameUnknown, Unauthorized, Unavailable
from dockmirror.oci.token import Credentials
from tests.fakes import ENDLESS, Reply
from tests.internet import AUTH, HUB, PASSWORD, USER, Internet
from tests.stacks import asked, bytes_of, now, upstream

JSON = (("Content-Type", "application/json"),)
TAGS = "/v2/library/busybox/tags/list"
REFERRERS = f"/v2/library/busybox/referrers/sha256:{'0' * 64}"
ALICE = Credentials.basic(USER, PASSWORD)


@pytest.fixture
def internet() -> Internet:
    """Return Docker Hub, open to all except at ``/v2/``."""
    internet = Internet()
    for path, body in ((TAGS, b'{"tags":[]}'), (REFERRERS, b'{"manifests":[]}'), ("/v2/_catalog", b"{}")):
        internet.reply(HUB, path, Reply(200, body, JSON))
    return internet


def fetch(internet: Internet, path: str, **details: Any) -> Answer:
    """Return Docker Hub's answer."""
    return now(upstream(internet.agent).fetch(asked(path, **details)))


def test_an_anonymous_ping_has_the_upstreams_challenge(internet: Internet) -> None:
    """The upstream is asked once for many clients."""
    registry = upstream(internet.agent)
    assert verifyObject(IRegistry, registry)
    for _ in range(3):
        with pytest.raises(Unauthorized) as raised:
            now(registry.fetch(asked("/v2/")))
        assert raised.value.challenges[0].get("realm") == f"https://{AUTH}/token"
        assert raised.value.upstream_status == 401
    assert len(internet.seen) == 1


def test_a_ping_succeeds_without_a_challenge(internet: Internet) -> None:
    """Its body is JSON, whatever the upstream's is."""
    answer = now(upstream(internet.agent, url="https://registry.k8s.io").fetch(asked("/v2/")))
    assert json.loads(bytes_of(answer.body)) == {}
    assert answer.upstream_status == 200


@pytest.mark.parametrize("head", [True, False])
def test_credentials_are_checked_by_the_upstream(internet: Internet, head: bool) -> None:
    """Each time: a login checks a password in this way."""
    registry = upstream(internet.agent)
    for authorization, status in (("Basic YTpi", 401), ("Bearer no", 401), ("Bearer yes", 200)):
        internet.reply(HUB, "/v2/", Reply(status, b"{}", JSON))
        request = asked("/v2/", credentials=Credentials(authorization), head=head)
        with nullcontext() if status == 200 else pytest.raises(Unauthorized):
            assert now(registry.fetch(request)).status == 200
        assert (internet.seen[-1].authorization, internet.seen[-1].path) == (authorization, "/v2/")
    assert len(internet.seen) == 3


@pytest.mark.parametrize("path", [TAGS, REFERRERS, "/v2/_catalog"])
class TestList:
    """Lists of tags, of referrers, of repositories."""

    @pytest.mark.parametrize("kind", ["application/vnd.oci.image.index.v1+json", None])
    def test_a_list_is_passed_on(self, internet: Internet, path: str, kind: str | None) -> None:
        """Its media type is the upstream's, or JSON."""
        internet.reply(HUB, path, Reply(200, b"{}", (("Content-Type", kind),) if kind else ()))
        answer = fetch(internet, path)
        assert (answer.status, answer.next_page, answer.upstream_status) == (200, None, 200)
        assert answer.body.descriptor == Descriptor(kind or "application/json", None, 2)
        assert bytes_of(answer.body) == b"{}"

    def test_parameters_and_credentials_arrive_unchanged(self, internet: Internet, path: str) -> None:
        """Parameters are in order, and properly encoded."""
        query = (("n", "10"), ("artifactType", "a/b+c d"), ("last", ""))
        fetch(internet, path, query=query, credentials=ALICE)
        assert internet.seen[0].url == f"https://{HUB}{path}?n=10&artifactType=a%2Fb%2Bc+d&last="
        assert internet.seen[0].authorization == ALICE.header

    @pytest.mark.parametrize(
        "link",
        [
            '</v2/x/tags/list?n=10&last=a%2Fb>; rel="next"',
            f"<https://{HUB}/v2/x?n=10&last=a%2Fb>;rel=next",
            '<?n=10&last=a%2Fb>; title="x"; rel="next"',
        ],
    )
    def test_the_next_page_is_known_by_its_query(self, internet: Internet, path: str, link: str) -> None:
        internet.reply(HUB, path, Reply(200, b"{}", (*JSON, ("Link", '</>; rel="prev"'), ("Link", link))))
        assert fetch(internet, path).next_page == (("n", "10"), ("last", "a/b"))

    def test_a_list_may_have_any_length(self, internet: Internet, path: str) -> None:
        """It is not kept."""
        body = b'{"tags":[%b]}' % (b" " * 5_000_000)
        internet.reply(HUB, path, Reply(200, body, JSON, told=False))
        answer = fetch(internet, path)
        assert answer.body.descriptor.size is None
        assert len(bytes_of(answer.body)) == len(body)

    def test_a_head_is_sent_as_a_head(self, internet: Internet, path: str) -> None:
        """It announces the length."""
        answer = fetch(internet, path, head=True)
        assert [seen.method for seen in internet.seen] == ["HEAD"]
        assert answer.body.descriptor.size
        assert bytes_of(answer.body) == b""

    def test_conditions_are_left_to_the_upstream(self, internet: Internet, path: str) -> None:
        internet.reply(HUB, path, Reply(304, b"", (("ETag", '"x"'),)))
        answer = fetch(internet, path, if_none_match='"x"')
        assert (answer.status, answer.headers) == (304, (("ETag", '"x"'),))
        assert internet.seen[0].header("If-None-Match") == '"x"'

    def test_a_web_page_is_refused(self, internet: Internet, path: str) -> None:
        """It is not read."""
        internet.reply(HUB, path, ENDLESS.having(("Content-Type", "text/html")))
        with pytest.raises(Unavailable, match="web page"):
            fetch(internet, path)
        internet.agent.flush()
        assert len(internet.abandoned) == 1

    def test_a_missing_list_is_an_unknown_repository(self, internet: Internet, path: str) -> None:
        """A 404 stays one, so that clients fall back to a tag for referrers."""
        internet.reply(HUB, path, Reply(404))
        with pytest.raises(NameUnknown) as raised:
            fetch(internet, path)
        assert raised.value.status == 404


def test_the_filters_of_referrers_are_forwarded(internet: Internet) -> None:
    """Otherwise a client filters them again."""
    header = ("OCI-Filters-Applied", "artifactType")
    internet.reply(HUB, REFERRERS, Reply(200, b"{}", (*JSON, header)))
    assert fetch(internet, REFERRERS).headers == (header,)
