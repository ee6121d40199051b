"""``dockmirror warm``, as far as it asks nobody; the rest is proved with a mirror that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .shop import Shop


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected images"),
        (["Nginx"], "invalid repository name"),
        (["nginx", "--platform", "linux"], "linux/amd64"),
        (["nginx", "--jobs", "0"], "--jobs"),
        (["nginx", "--mirror", "nowhere"], "--mirror"),
        (["nginx", "--user", "alice"], "--password-file"),
        (["-f", "/nowhere"], "/nowhere"),
    ],
)
def test_refused(shop: Shop, arguments: list[str], said: str) -> None:
    """What is wrong is told before anything is asked."""
    assert said in shop.run("warm", *arguments, code=2).output


def test_nothing_in_a_file(shop: Shop, tmp_path: Path) -> None:
    """Is nothing."""
    file = tmp_path / "images"
    file.write_text("\n  # nothing\n")
    assert "expected images" in shop.run("warm", "-f", str(file), code=2).output


def test_no_port(shop: Shop) -> None:
    """Of a mirror that listens on none it has to be said where it is."""
    refused = shop.run("warm", "nginx", code=2, environ={"DOCKMIRROR_LISTEN": "unix:/run/mirror.sock"})
    assert "--mirror" in refused.output
