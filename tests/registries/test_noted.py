"""Registries of which it is noted what came of asking them, and what was given of them."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.content.held import json_content
from dockmirror.interfaces import Answer, IContent, IRegistry
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import ManifestUnknown, RegistryError, TimedOut, TooManyRequests, Unauthorized
from dockmirror.oci.request import Request
from dockmirror.oci.token import TokenRequest
from dockmirror.registries.noted import Noted, Popularity
from dockmirror.status.outcomes import Outcomes
from dockmirror.status.popular import SIZE, Popular, Pulled
from dockmirror.status.values import Address
from tests.stacks import asked, bytes_of, now

MANIFEST, BLOB = "/v2/a/b/manifests/latest", f"/v2/a/b/blobs/sha256:{'0' * 64}"


@implementer(IRegistry)
class Saying:
    """Answers everything with two bytes, or fails."""

    def __init__(self, error: RegistryError | None = None) -> None:
        self._error = error

    async def fetch(self, request: Request) -> Answer:
        """See ``IRegistry``."""
        if self._error is not None:
            raise self._error
        return Answer(json_content(b"{}"))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self.fetch(asked("/v2/"))


def noted(request: Request | TokenRequest, error: RegistryError | None = None) -> Address:
    """What is noted of an address that was asked this."""
    clock = Clock()
    clock.advance(7)
    outcome = Outcomes(clock).of("https://a")
    registry = Noted(Saying(error), outcome)
    verifyObject(IRegistry, registry)
    asking = registry.token(request) if isinstance(request, TokenRequest) else registry.fetch(request)
    if error is None:
        now(asking)
    else:
        with pytest.raises(type(error)):
            now(asking)
    return outcome.address


@pytest.mark.parametrize("error", [None, ManifestUnknown(), Unauthorized()])
@pytest.mark.parametrize("request_", [asked(MANIFEST), TokenRequest()])
def test_an_answer(request_: Request | TokenRequest, error: RegistryError | None) -> None:
    """Be it no, it is one."""
    assert noted(request_, error) == Address("https://a", answered=7.0)


@pytest.mark.parametrize("error", [TimedOut("it took too long"), TooManyRequests("come back later")])
@pytest.mark.parametrize("request_", [asked(MANIFEST), asked("/v2/"), TokenRequest()])
def test_a_failure(request_: Request | TokenRequest, error: RegistryError) -> None:
    """Is noted with the sentence that says why."""
    assert noted(request_, error) == Address("https://a", failed=7.0, failure=str(error))


@pytest.mark.parametrize("error", [None, Unauthorized()])
def test_what_was_remembered(error: RegistryError | None) -> None:
    """Of what ``/v2/`` demands nobody may have been asked just now; credentials are checked there."""
    assert noted(asked("/v2/"), error) == Address("https://a")
    credentials = Credentials("Bearer x")
    assert noted(asked("/v2/", credentials=credentials), error) == Address("https://a", answered=7.0)


def test_what_is_sent() -> None:
    """Counts by repository once it has been sent whole: manifests and bytes; no HEAD, and no token."""
    popular = Popular(memoryview(bytearray(SIZE)))
    registry = Popularity(Saying(), "r.io", popular)
    verifyObject(IRegistry, registry)
    for path in (MANIFEST, BLOB, "/v2/_catalog"):
        content = now(registry.fetch(asked(path))).content
        verifyObject(IContent, content)
        assert bytes_of(content) == b"{}"
    now(registry.fetch(asked(MANIFEST, head=True)))
    now(registry.fetch(asked(MANIFEST))).content.discard()
    now(registry.token(TokenRequest()))
    assert popular.most(9) == [Pulled("r.io/a/b", 1, 4)]
