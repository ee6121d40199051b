"""The section of the status page about the mirror itself: version, processes, certificates, and links."""

from __future__ import annotations

from twisted.web.template import Tag, tags

from ..pages.page import Language, section, table
from .overview import Status
from .status_text import describe_expiry, format_uptime

_DOCUMENTS = "https://github.com/dockmirror/dockmirror/blob/main/docs"
_LINKS = {
    "documents": f"{_DOCUMENTS}/how-to/monitor.md",
    "metrics": "metrics",
    "json": "status.json",
    "dashboard": f"{_DOCUMENTS}/examples/grafana.json",
    "alerts": f"{_DOCUMENTS}/examples/alerts.yml",
}


def render_mirror(status: Status, say: Language) -> Tag:
    facts = {
        "version": status.version,
        "uptime": format_uptime(status.now - status.started),
        "processes": str(status.worker_state.processes),
    }
    rows = (
        tags.tr(tags.th(say(f"status.{name}"), scope="row"), tags.td(value)) for name, value in facts.items()
    )
    links = (tags.li(tags.a(say(f"status.link.{name}"), href=url)) for name, url in _LINKS.items())
    part = section("mirror", say("status.mirror"))
    part(tags.div(tags.table(tags.tbody([*rows]), class_="facts"), class_="wide"))
    if status.worker_state.certificates:
        part(tags.h3(say("status.certificates")), _certificates(status, say))
    return part(tags.ul([*links], class_="links"))


def _certificates(status: Status, say: Language) -> Tag:
    rows = (
        tags.tr(
            tags.th(tags.code(each.file), scope="row"),
            tags.td(
                describe_expiry(each, status.now, say),
                class_="bad" if each.expires - status.now < 7 * 86_400 else "",
            ),
        )
        for each in status.worker_state.certificates
    )
    return table((say("status.column.file"), say("status.column.expires")), rows, "facts")
