"""The site that ``make docs`` builds: its menu, its first page, and its links out of docs/."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from types import SimpleNamespace
from typing import Any

import pytest

from .test_docs import DOCUMENTS, ROOT, text

DOCS = ROOT / "docs"
PAGES = {str(each.relative_to(DOCS)) for each in DOCUMENTS if each.is_relative_to(DOCS)}
KINDS = ("tutorials", "how-to", "reference", "explanation")


def test_each_page_is_in_the_menu_once() -> None:
    menu = text("mkdocs.yml").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"(\S+\.md)$", menu, re.MULTILINE)) == sorted(PAGES)


def test_each_page_has_one_of_the_four_kinds() -> None:
    """Or is the first page, or the page for contributors."""
    others = {each for each in PAGES if not each.removeprefix("zh/").startswith(KINDS)}
    assert others == {"index.md", "development.md"}


@pytest.mark.parametrize("page", sorted(PAGES - {"index.md"}))
def test_the_first_page_links_to_each(page: str) -> None:
    assert f"]({page})" in text("docs/index.md")


def test_links_out_of_the_directory_lead_to_the_repository() -> None:
    """All others stay as they are."""
    assert rewritten(
        "[a](../../SECURITY.md#x) [b](../examples/nginx.conf) [c](#here) [d](https://e.example)"
    ) == (
        "[a](https://github.example/o/r/blob/main/SECURITY.md#x) [b](../examples/nginx.conf) "
        "[c](#here) [d](https://e.example)"
    )


def rewritten(markdown: str) -> str:
    """Return a how-to guide as the site has it."""
    spec = spec_from_file_location("repository_links", DOCS / "repository_links.py")
    assert spec
    assert spec.loader
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/tls.md"))
    return str(module.on_page_markdown(markdown, page, {"repo_url": "https://github.example/o/r"}, None))
