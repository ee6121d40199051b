"""Tests of the completion of image names."""

from __future__ import annotations

import pytest
from click.shell_completion import BashComplete

from dockmirror.cli.main import main

from .shop import Shop

NAMES = {
    "docker.io/library/nginx:1.27", "docker.io/library/nginx:latest", "nginx:1.27", "nginx:latest"
}  # fmt: skip


@pytest.fixture(autouse=True)
def _settings(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKMIRROR_CACHE", str(shop.root))
    monkeypatch.delenv("DOCKMIRROR_CONFIG", raising=False)


def completed(*words: str) -> set[str]:
    """Return the completions of the last of these words."""
    *arguments, incomplete = words
    shell = BashComplete(main, {}, "dockmirror", "_DOCKMIRROR_COMPLETE")
    return {each.value for each in shell.get_completions(arguments, incomplete)}


@pytest.mark.parametrize("command", ["rm", "export", "pin", "unpin", "warm"])
def test_commands_complete_the_images_in_the_cache(command: str) -> None:
    """Docker Hub's by their short names too."""
    assert completed(command, "") == NAMES
    assert completed(command, "ng") == {"nginx:1.27", "nginx:latest"}
    assert completed(command, "docker.io/library/nginx:l") == {"docker.io/library/nginx:latest"}
    assert completed(command, "httpd") == set()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("nginx", ":"), {"1.27", "latest"}),
        (("nginx", ":", "1"), {"1.27"}),
        (("nginx:", ""), {"1.27", "latest"}),
        (("nginx", ":", "latest", "ng"), {"nginx:1.27", "nginx:latest"}),
    ],
)
def test_a_tag_is_completed_where_the_shell_splits_words_at_colons(
    words: tuple[str, ...], offered: set[str]
) -> None:
    """bash does so."""
    assert completed("rm", *words) == offered


def test_ls_completes_repositories() -> None:
    assert completed("ls", "g") == {"ghcr.io/o/r"}
    assert completed("list", "docker") == {"docker.io/library/nginx"}


def test_nothing_is_completed_where_the_settings_or_the_cache_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert completed("-c", "/nowhere.toml", "rm", "") == set()
    assert completed("rm", "-c", "/nowhere.toml", "") == set()
    monkeypatch.setenv("DOCKMIRROR_CACHE", "/nowhere")
    assert completed("rm", "") == set()
