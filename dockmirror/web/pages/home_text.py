"""The page as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from ...client_config.archive_command import archive
from ...client_config.clients import CLIENTS
from .home_view import HomePageView, format_age, format_size, source_phrase
from .languages import Language


def render_text(shown: HomePageView, say: Language) -> str:
    """An overview for a terminal."""
    mirror = shown.mirror
    parts = [
        [_title(shown, say)],
        [f"    {shown.example}"],
        table([[each.name, f"{mirror.by_path(each)}/…", each.host] for each in mirror.registries]),
        [say("text.clients")],
        table([[f"curl {mirror.url}/client/{c.name}", c.snippets(mirror)[0].path] for c in CLIENTS.values()]),
        [say("text.archives")] if mirror.archives else [],
        [f"    {line}" for line in archive(mirror).text.splitlines()] if mirror.archives else [],
        [say("requests.of", address=shown.client.address)] if shown.client.address else [],
        [*_seen(shown, say)] or [f"    {say('requests.none')}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _title(shown: HomePageView, say: Language) -> str:
    return say("title.own") if shown.registry is None else say("title.one", registry=shown.registry.name)


def _seen(shown: HomePageView, say: Language) -> Iterator[str]:
    rows = [
        [
            format_age(shown.now - each.time),
            f"{each.method} {each.path}",
            str(each.status),
            format_size(each.size),
            say(source_phrase(each)),
        ]
        for each in shown.requests
    ]
    return iter(table(rows))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns; none of no rows."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"    {_row(row, widths)}" for row in rows]


def _row(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def render_json(shown: HomePageView) -> str:
    """The same for programs."""
    mirror = shown.mirror
    return json.dumps(
        {
            "mirror": mirror.url,
            "registries": [
                {"name": each.name, "path": mirror.by_path(each), "host": each.host or None}
                for each in mirror.registries
            ],
            "clients": {name: f"{mirror.url}/client/{name}" for name in CLIENTS},
            "export": f"{mirror.url}/export" if mirror.archives else None,
            "requests": [
                {
                    "time": datetime.fromtimestamp(each.time, UTC).isoformat(timespec="milliseconds"),
                    "host": each.host, "method": each.method, "path": each.path, "status": each.status,
                    "bytes": each.size, "upstream": each.upstream, "cut_off": each.cut_off,
                }
                for each in shown.requests
            ],
        },
        indent=2,
    )  # fmt: skip
