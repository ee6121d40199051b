"""Registries of which it is noted what came of asking them, and what was given of them."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from dockmirror.body.in_memory import json_body
from dockmirror.interfaces import Answer, IBody, IRegistry
from dockmirror.middleware.health_recorder import HealthRecorder, PullCounter
from dockmirror.oci.credentials import Credentials
from dockmirror.oci.errors import ManifestUnknown, RegistryError, TimedOut, TooManyRequests, Unauthorized
from dockmirror.oci.request import RegistryRequest
from dockmirror.oci.token import TokenRequest
from dockmirror.status.pull_counts import SIZE, PullCounts, RepositoryPulls
from dockmirror.status.status_values import AddressStatus
from dockmirror.status.upstream_health import UpstreamHealth
from tests.stacks import asked, bytes_of, now

MANIFEST, BLOB = "/v2/a/b/manifests/latest", f"/v2/a/b/blobs/sha256:{'0' * 64}"


@implementer(IRegistry)
class Saying:
    """Answers everything with two bytes, or fails."""

    def __init__(self, error: RegistryError | None = None) -> None:
        self._error = error

    async def fetch(self, request: RegistryRequest) -> Answer:
        """See ``IRegistry``."""
        if self._error is not None:
            raise self._error
        return Answer(json_body(b"{}"))

    async def token(self, request: TokenRequest) -> Answer:
        """See ``IRegistry``."""
        return await self.fetch(asked("/v2/"))


def noted(request: RegistryRequest | TokenRequest, error: RegistryError | None = None) -> AddressStatus:
    """What is noted of an address that was asked this."""
    clock = Clock()
    clock.advance(7)
    outcome = UpstreamHealth(clock).of("https://a")
    registry = HealthRecorder(Saying(error), outcome)
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
def test_an_answer(request_: RegistryRequest | TokenRequest, error: RegistryError | None) -> None:
    """Be it no, it is one."""
    assert noted(request_, error) == AddressStatus("https://a", answered=7.0)


@pytest.mark.parametrize("error", [TimedOut("it took too long"), TooManyRequests("come back later")])
@pytest.mark.parametrize("request_", [asked(MANIFEST), asked("/v2/"), TokenRequest()])
def test_a_failure(request_: RegistryRequest | TokenRequest, error: RegistryError) -> None:
    """Is noted with the sentence that says why."""
    assert noted(request_, error) == AddressStatus("https://a", failed=7.0, failure=str(error))


@pytest.mark.parametrize("error", [None, Unauthorized()])
def test_what_was_remembered(error: RegistryError | None) -> None:
    """Of what ``/v2/`` demands nobody may have been asked just now; credentials are checked there."""
    assert noted(asked("/v2/"), error) == AddressStatus("https://a")
    credentials = Credentials("Bearer x")
    assert noted(asked("/v2/", credentials=credentials), error) == AddressStatus("https://a", answered=7.0)


def test_what_is_sent() -> None:
    """Counts by repository once it has been sent whole: manifests and bytes; no HEAD, and no token."""
    popular = PullCounts(memoryview(bytearray(SIZE)))
    registry = PullCounter(Saying(), "r.io", popular)
    verifyObject(IRegistry, registry)
    for path in (MANIFEST, BLOB, "/v2/_catalog"):
        content = now(registry.fetch(asked(path))).body
        verifyObject(IBody, content)
        assert bytes_of(content) == b"{}"
    now(registry.fetch(asked(MANIFEST, head=True)))
    now(registry.fetch(asked(MANIFEST))).body.discard()
    now(registry.token(TokenRequest()))
    assert popular.most(9) == [RepositoryPulls("r.io/a/b", 1, 4)]
