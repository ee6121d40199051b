"""Images that are not evicted."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.digest import Digest
from dockmirror.oci.manifest import Platform
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout, pins
from dockmirror.store.pins import Pin
from dockmirror.system.times import ClockHistory

from ..values import digests, repositories, tags
from .stocked import Stocked

DAY = 86_400.0
NGINX = Pin(Repository("docker.io/library/nginx"), Tag("1.27"))
PLATFORMS = st.builds(
    Platform, st.just("linux"), st.sampled_from(["amd64", "arm"]), st.sampled_from(["", "v7"])
)


@given(st.builds(Pin, repositories, st.one_of(tags, digests), st.lists(PLATFORMS).map(tuple)))
def test_round_trip(pin: Pin) -> None:
    """A written pin is read again."""
    assert Pin.parse(bytes(pin)) == pin


@given(
    st.binary()
    | st.sampled_from(
        [
            b"{}",
            b"[]",
            b"[" * 100_000,
            b'{"repository": "A", "reference": "", "platforms": []}',
            b'{"repository": "a/b", "reference": "1", "platforms": [1]}',
        ]
    )
)
def test_malformed(data: bytes) -> None:
    """A malformed file is no pin and raises nothing."""
    assert Pin.parse(data) is None


def test_pin_and_unpin(tmp_path: Path) -> None:
    """An image is pinned once by its name, until it is unpinned; other files are no pins."""
    assert list(pins.iter_pins(tmp_path)) == []
    amd = Pin(NGINX.repository, NGINX.reference, (Platform("linux", "amd64"),))
    by_digest = Pin(NGINX.repository, Digest.of(b""))
    for pin in (NGINX, by_digest, amd):
        pins.add_pin(tmp_path, pin)
    (tmp_path / layout.PINS / "something").write_text("else")
    assert sorted(pins.iter_pins(tmp_path), key=str) == sorted([(amd, 0.0), (by_digest, 0.0)], key=str)
    assert pins.remove_pin(tmp_path, NGINX)
    assert not pins.remove_pin(tmp_path, NGINX)
    assert list(pins.iter_pins(tmp_path)) == [(by_digest, 0.0)]


def test_refreshed(tmp_path: Path) -> None:
    """A refresh is recorded, unless the pin was removed or its platforms were changed meanwhile."""
    arm = Pin(NGINX.repository, NGINX.reference, (Platform("linux", "arm"),))
    pins.add_pin(tmp_path, NGINX)
    pins.mark_refreshed(tmp_path, NGINX, 1000.0)
    assert list(pins.iter_pins(tmp_path)) == [(NGINX, 1000.0)]
    pins.add_pin(tmp_path, arm)
    pins.mark_refreshed(tmp_path, NGINX, 1000.0)
    assert list(pins.iter_pins(tmp_path)) == [(arm, 0.0)]
    pins.remove_pin(tmp_path, arm)
    pins.mark_refreshed(tmp_path, arm, 1000.0)
    assert list(pins.iter_pins(tmp_path)) == []


def test_one_process_refreshes(tmp_path: Path) -> None:
    """Only one process refreshes at a time."""
    first = pins.lock_refresh(tmp_path)
    assert first is not None
    assert pins.lock_refresh(tmp_path) is None
    os.close(first)
    second = pins.lock_refresh(tmp_path)
    assert second is not None
    os.close(second)


def test_manifests(tmp_path: Path) -> None:
    """A pinned tag pins the manifest it names now, a pinned digest itself."""
    store = Stocked(tmp_path)
    named = store.image(store.blob(b"layer"), tag="1.27", repository=NGINX.repository)
    other = Digest.of(b"not held")
    for pin in (NGINX, Pin(NGINX.repository, Tag("gone")), Pin(NGINX.repository, other)):
        pins.add_pin(tmp_path, pin)
    found = set(pins.iter_pinned_manifests(tmp_path))
    assert found == {(NGINX.repository, named), (NGINX.repository, other)}


def test_what_a_tag_is_served_as_is_not_evicted(tmp_path: Path) -> None:
    """As long as clients pull it; a clock that is set forward makes no difference."""
    held, now = Digest.of(b"held"), 1000 * DAY
    pins.hold_tag(tmp_path, NGINX.repository, Tag("latest"), held, now)
    clock = ClockHistory(now, 0.0)
    for later, uptime, expected in (
        (29 * DAY, 29 * DAY, [held]),
        (31 * DAY, 29 * DAY, [held]),
        (31 * DAY, 31 * DAY, []),
        (0.0, 0.0, []),
    ):
        assert list(pins.iter_held_manifests(tmp_path, clock.advance(now + later, uptime))) == expected
