"""The frame of every page and its building blocks: style, snippets to copy, tables."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files

from attrs import field, frozen
from twisted.web.template import Tag, tags

from ...client_config.snippet import Snippet
from .languages import LANGUAGES, Language


def read_asset(package: str, name: str) -> str:
    """Read a file of the package that is embedded into a page.

    :raises ValueError: when it contains characters that would be escaped, which would change its hash.
    """
    content = files(package).joinpath(name).read_text("utf-8")
    if re.search("[<>&]", content):
        raise ValueError(f"{name} cannot stand in a document as it is")
    return content


def _hash(content: str) -> str:
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%230b6b72'%3E"
    "%3Cpath d='M2 2h5v12H2z'/%3E%3Cpath fill-opacity='.45' d='M9 2h5v12H9z'/%3E%3C/svg%3E"
)


@frozen
class PageAssets:
    """The style and the script that are embedded into a page.

    :ivar may_connect: whether the script may request more from the page's host.
    """

    style: str = field(repr=False)
    script: str = field(repr=False)
    may_connect: bool = False

    @property
    def policy(self) -> str:
        """The ``Content-Security-Policy``: only the embedded style and script are allowed."""
        asks = "'self'" if self.may_connect else "'none'"
        return (
            f"default-src 'none'; style-src {_hash(self.style)}; script-src {_hash(self.script)};"
            f" img-src data:; connect-src {asks};"
            " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


PAGE = PageAssets(read_asset(__package__, "page.css"), read_asset(__package__, "page.js"))


def render_page(title: str, say: Language, *content: Tag, look: PageAssets = PAGE) -> Tag:
    """Return a whole document with this content."""
    head = tags.head(
        tags.meta(charset="utf-8"),
        tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
        tags.meta(name="color-scheme", content="light dark"),
        tags.title(title),
        tags.link(rel="icon", href=_ICON),
        tags.style(look.style),
    )
    return tags.html(head, tags.body(*content, _footer(say), tags.script(look.script)), lang=say.code)


def _footer(say: Language) -> Tag:
    links = (
        tags.a(other.name, href=f"?lang={code}", lang=code, hreflang=code)
        for code, other in LANGUAGES.items() if code != say.code
    )  # fmt: skip
    return tags.footer(tags.span("dockmirror"), [[" · ", link] for link in links])


def section(name: str, title: str) -> Tag:
    """Return a section that can be linked to."""
    return tags.section(tags.h2(title), id=name)


def table(names: Iterable[str], rows: Iterable[Tag], kind: str) -> Tag:
    """Return a table that scrolls if it is wider than the window."""
    head = tags.thead(tags.tr(tags.th(name, scope="col") for name in names))
    return tags.div(tags.table(head, tags.tbody([*rows]), class_=kind), class_="wide")


def snippet_figure(snippet: Snippet, say: Language) -> Tag:
    """Return a snippet with a button that copies it."""
    button = tags.button(
        say("copy"), type="button", class_="copy", hidden="", **{"data-copied": say("copied")}
    )
    caption = tags.figcaption(tags.span(snippet.path), button)
    return tags.figure(caption, tags.pre(tags.code(snippet.text.rstrip("\n")), tabindex="0"))


def inline_code(text: str) -> list[Tag | str]:
    """Split text at backquotes, and mark up what is between them as code."""
    return [tags.code(part) if number % 2 else part for number, part in enumerate(text.split("`"))]
