"""The log of downloads."""

from __future__ import annotations

from pathlib import Path

from .upstream import DATA, HALF, Mirror, Source, Upstream, finish, full


def test_a_full_disk_is_logged_once(tmp_path: Path, upstream: Upstream, log: list[str]) -> None:
    """A full disk is logged once, until something was stored again."""
    mirror = Mirror(tmp_path, DATA)
    for _ in range(3):
        client = mirror.read(Source(upstream))
        with full(HALF):
            upstream.body.send()
        mirror.turn(times=10)
        finish(upstream, mirror)
        assert client.outcome is True
    assert len(log) == 1
    assert client.received == DATA
    kept = mirror.read(Source(upstream))
    finish(upstream, mirror)
    assert kept.outcome is True
    mirror.blob.unlink()
    client = mirror.read(Source(upstream))
    with full(HALF):
        upstream.body.send()
    client.leave()
    assert len(log) == 2
