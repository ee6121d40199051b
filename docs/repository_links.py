"""A hook of mkdocs: links that leave docs/ lead to the repository on GitHub."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return the page with absolute addresses for files outside docs/."""
    directory = PurePosixPath("docs", page.file.src_uri).parent
    return _LINK.sub(lambda link: _absolute(link, directory, config["repo_url"]), markdown)


def _absolute(link: re.Match[str], directory: PurePosixPath, repository: str) -> str:
    target = normpath(directory / link[1])
    if target.startswith("docs/"):
        return link[0]
    return f"]({repository}/blob/main/{target}{link[2] or ''})"
