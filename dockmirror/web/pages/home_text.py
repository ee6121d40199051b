"""The home page as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from ...client_config.clients import CLIENTS, download_archive
from ...system.timestamps import format_timestamp
from .home_view import HomePageView, describe_source, format_age, format_size
from .languages import Language


def render_text(view: HomePageView, say: Language) -> str:
    """Return an overview for a terminal."""
    mirror = view.mirror
    parts = [
        [_title(view, say)],
        [f"    {view.example}"],
        table([[each.name, f"{mirror.by_path(each)}/…", each.host] for each in mirror.registries]),
        [say("text.clients")],
        table([[f"curl {mirror.url}/client/{c.name}", c.snippets(mirror)[0].path] for c in CLIENTS.values()]),
        [say("text.archives")] if mirror.archives else [],
        [f"    {line}" for line in download_archive(mirror).text.splitlines()] if mirror.archives else [],
        [say("requests.of", address=view.client.address)] if view.client.address else [],
        [*_seen(view, say)] or [f"    {say('requests.none')}"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _title(view: HomePageView, say: Language) -> str:
    return say("title.own") if view.registry is None else say("title.one", registry=view.registry.name)


def _seen(view: HomePageView, say: Language) -> Iterator[str]:
    rows = [
        [
            format_age(view.now - each.time),
            f"{each.method} {each.path}",
            str(each.status),
            format_size(each.size),
            describe_source(each, say),
        ]
        for each in view.requests
    ]
    return iter(table(rows))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows as lines of aligned columns."""
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [f"    {_row(row, widths)}" for row in rows]


def _row(row: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def render_json(view: HomePageView) -> str:
    mirror = view.mirror
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
                    "time": format_timestamp(each.time),
                    "host": each.host, "method": each.method, "path": each.path, "status": each.status,
                    "bytes": each.size, "upstream": each.upstream, "cut_off": each.cut_off,
                    "reason": each.reason,
                }
                for each in view.requests
            ],
        },
        indent=2,
    )  # fmt: skip
