"""Tests of ``dockmirror warm`` without a network; the integration tests use a running mirror."""

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
def test_invalid_arguments_are_refused_before_any_request(
    shop: Shop, arguments: list[str], said: str
) -> None:
    assert said in shop.run("warm", *arguments, code=2).output


def test_a_file_without_images_is_refused(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "images"
    file.write_text("\n  # nothing\n")
    assert "expected images" in shop.run("warm", "-f", str(file), code=2).output


def test_a_mirror_without_a_port_needs_an_address(shop: Shop) -> None:
    refused = shop.run("warm", "nginx", code=2, environ={"DOCKMIRROR_LISTEN": "unix:/run/mirror.sock"})
    assert "--mirror" in refused.output


def test_a_file_that_is_no_text_is_refused(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "images"
    file.write_bytes(b"\xff\x00\xfe")
    refused = [shop.run("warm", "-f", str(file), code=1).stderr]
    refused.append(shop.run("export", "-f", str(file), "-o", str(tmp_path / "a.tar"), code=1).stderr)
    assert refused[0] == refused[1]
    assert f"{file}: 'utf-8' codec can't decode" in refused[0]
