"""The configuration of each client, in tabs that need no script: radio buttons, each with a panel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from twisted.web.template import Tag, tags

from ...client_config.clients import CLIENTS, SETUP_CLIENTS
from ...client_config.snippet import ClientConfig, MirrorAddress, Snippet
from .page import Language, inline_code, snippet_figure

_Panel = tuple[str, str, Tag]
"""The name of a tab, its title, and its content."""


def render_tabs(mirror: MirrorAddress, setup: MirrorAddress | None, chosen: str, say: Language) -> Tag:
    """Return the tabs of all clients.

    :param setup: the mirror as its setup scripts name it; None if it gives this client none.
    :param chosen: the client whose tab is open; any other name opens the first.
    """
    chosen = chosen if chosen in CLIENTS else next(iter(CLIENTS))
    return _tabs("client", say("clients"), chosen_tab(chosen), _panels(mirror, setup, chosen, say))


def chosen_tab(client: str) -> str:
    """Return the name of the tab that has a client."""
    return CLIENTS[client].tab or client


def _panels(
    mirror: MirrorAddress, setup: MirrorAddress | None, chosen: str, say: Language
) -> Iterator[_Panel]:
    for client in CLIENTS.values():
        if client.tab:
            continue
        systems = [client, *(each for each in CLIENTS.values() if each.tab == client.name)]
        if systems[1:]:
            panels = [
                (each.name, say(f"system.{each.system}"), _client(each, mirror, setup, say))
                for each in systems
            ]
            opened = chosen if any(each.name == chosen for each in systems) else client.name
            yield client.name, client.title, _tabs(f"system-{client.name}", say("systems"), opened, panels)
        else:
            yield client.name, client.title, _client(client, mirror, setup, say)


def _tabs(group: str, legend: str, chosen: str, panels: Iterable[_Panel]) -> Tag:
    part = tags.fieldset(tags.legend(legend, class_="hidden"), class_=f"tabs {group.partition('-')[0]}")
    for name, title, content in panels:
        identity = f"{group}-{name}"
        button = tags.input(type="radio", name=group, id=identity)
        if name == chosen:
            button(checked="checked")
        part(button, tags.label(title, **{"for": identity}))
        part(tags.div(content, class_="panel", **{"data-tab": identity}))
    return part


def _client(client: ClientConfig, mirror: MirrorAddress, setup: MirrorAddress | None, say: Language) -> Tag:
    part = tags.div(id=client.name)
    by_hand = _by_hand(client, mirror, say)
    if setup and client.name in SETUP_CLIENTS:
        words = "setup.restart" if "restart" in client.after else "setup"
        part(tags.p(inline_code(say(words))), snippet_figure(_script(client, setup), say))
        part(tags.details(tags.summary(say("clients.by_hand")), by_hand))
    else:
        part(by_hand)
    return part(tags.details(tags.summary(say("clients.undo")), _undo(client, mirror, say)))


def _script(client: ClientConfig, setup: MirrorAddress) -> Snippet:
    return Snippet(
        f"curl -fsSLo setup.sh {setup.url}/setup/{client.name}; sh setup.sh\nsudo sh setup.sh --apply\n"
    )


def _by_hand(client: ClientConfig, mirror: MirrorAddress, say: Language) -> list[Tag]:
    first, *others = client.snippets(mirror)
    parts = [tags.p(inline_code(say(client.name, host=mirror.host))), snippet_figure(first, say)]
    if client.after:
        parts.append(tags.p(say("clients.after"), " ", tags.code(client.after), class_="after"))
    for snippet in others:
        parts.append(tags.p(inline_code(say(f"{client.name}.{snippet.name}"))))
        parts.append(snippet_figure(snippet, say))
    return parts


def _undo(client: ClientConfig, mirror: MirrorAddress, say: Language) -> list[Tag]:
    parts = [tags.p(inline_code(say(f"{client.name}.undo")))]
    commands = client.undo(mirror)
    return [*parts, snippet_figure(Snippet(commands), say)] if commands else parts
