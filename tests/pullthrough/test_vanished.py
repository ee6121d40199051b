"""Tags that the upstream has deleted."""

from __future__ import annotations

import pytest

from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, ManifestUnknown, NameUnknown, RegistryError, Unreachable

from .mirrors import CONFIG, DAY, LAYER, NAME, PRIVATE, TAG, TTL, Mirror, body, header
from .origin import Origin


@pytest.mark.parametrize("error", [ManifestUnknown(), NameUnknown()])
def test_a_tag_that_vanished_is_forgotten(origin: Origin, warm: Mirror, error: RegistryError) -> None:
    """The 404 is given on; later failures are not answered with what was there."""
    warm.clock.advance(TTL)
    origin.trouble = error
    with pytest.raises(type(error)):
        warm.ask(TAG)
    origin.trouble = Unreachable()
    with pytest.raises(Unreachable):
        warm.ask(TAG)


def test_strangers_cannot_purge(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """A 404 of a private repository counts only for authorized clients."""
    for who in ("mallory", None):
        origin.troubles[who or "nobody"] = ManifestUnknown()
        with pytest.raises(ManifestUnknown):
            warm.ask(PRIVATE, who)
    assert warm.get(PRIVATE, "alice") == manifest
    assert origin.take()[-1] == f"alice: HEAD {PRIVATE}"
    origin.troubles["alice"] = ManifestUnknown()
    with pytest.raises(ManifestUnknown):
        warm.ask(PRIVATE, "alice")
    del origin.troubles["alice"]
    warm.get(PRIVATE, "alice")
    assert f"alice: GET {PRIVATE}" in origin.take()


def test_what_vanished_may_be_kept(origin: Origin, warm: Mirror, manifest: bytes) -> None:
    """``keep_deleted_upstream`` serves the whole image with a warning to authorized clients."""
    keeping = warm.restarted(keep_deleted_upstream=True)
    for age in (TTL, 2 * DAY, 6 * DAY):
        origin.trouble = None
        keeping.get(f"{NAME}/blobs/{Digest.of(LAYER)}")
        keeping.clock.advance(age)
        origin.trouble = ManifestUnknown("no such manifest")
        origin.take()
        answer = keeping.ask(TAG)
        assert origin.take() == [f"nobody: HEAD {TAG}"]
        assert body(answer) == manifest
        assert header(answer, "Warning") == '299 - "served stale: no such manifest"'
        assert keeping.pull(NAME) == keeping.pull(NAME, "somebody") == [manifest, CONFIG, LAYER]
    origin.trouble = None
    origin.troubles["mallory"] = Denied(status=404)
    with pytest.raises(Denied):
        keeping.ask(PRIVATE, "mallory")
