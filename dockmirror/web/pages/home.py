"""The home page as an HTML document that works without its script, as text, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from attrs import asdict, frozen
from twisted.web.template import Tag, tags

from ...client_config.clients import (
    CLIENTS,
    SETUP_CLIENTS,
    TrialPull,
    download_archive,
    trial_image,
    trial_pulls,
    trial_registry,
)
from ...client_config.snippet import HUB, ClientConfig, MirrorAddress, MirroredRegistry, Snippet
from ...system.networks import ClientAddress
from ...system.times import format_timestamp
from .own_pulls import (
    ClientPulls,
    ClientTest,
    describe_age,
    describe_pull,
    name_image,
    render_pulls,
    render_test,
)
from .page import (
    PAGE,
    Language,
    PageAssets,
    align_columns,
    inline_code,
    read_asset,
    render_page,
    section,
    snippet_figure,
    table,
)

_Panel = tuple[str, str, Tag]
"""The name of a tab, its title, and its content."""
ASSETS = PageAssets(
    f"{PAGE.style}\n{read_asset(__package__, 'home.css')}",
    f"{PAGE.script}\n{read_asset(__package__, 'home.js')}",
    may_connect=True,
)


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


@frozen
class HomePageView:
    """The mirror as one client sees it.

    :ivar registry: the registry of the requested virtual host; None on the mirror's own host.
    :ivar setup: the mirror as its setup scripts name it; None if it gives this client none.
    :ivar pulls: the client's own.
    :ivar test: the client's test, which may not have begun.
    :ivar chosen: the client whose tab is open.
    """

    mirror: MirrorAddress
    registry: MirroredRegistry | None
    setup: MirrorAddress | None
    client: ClientAddress
    pulls: ClientPulls
    test: ClientTest
    chosen: str = ""

    @property
    def host(self) -> str:
        """The requested host."""
        return self.client.host if self.registry is None else self.registry.host

    @property
    def now(self) -> float:
        return self.test.now

    @property
    def example(self) -> str:
        """A pull command that works."""
        if self.registry is not None:
            return f"docker pull {self.registry.host}/{self.registry.placeholder}"
        registry = trial_registry(self.mirror)
        image = "library/busybox" if registry.name == HUB else trial_image(registry)
        return f"docker pull {self.mirror.by_path(registry)}/{image}"

    @property
    def trials(self) -> Sequence[TrialPull]:
        """The commands that test a client."""
        return trial_pulls(self.mirror, self.registry)


def render_home(view: HomePageView, say: Language) -> Tag:
    """Return the whole document."""
    pair = tags.div(_test(view, say), _pulls(view, say), class_="pair")
    main = Tag("main")(_clients(view, say), pair, _registries(view, say))
    if view.mirror.archives:
        main(_archives(view, say))
    if view.mirror.images:
        main(tags.p(tags.a(say("images.held"), href=f"{view.mirror.url}/images/"), id="images"))
    title = f"{view.host}: {_title(view, say)}"
    return render_page(title, say, _header(view, say), main, look=ASSETS)


def _title(view: HomePageView, say: Language) -> str:
    return say("title.own") if view.registry is None else say("title.one", registry=view.registry.name)


def _header(view: HomePageView, say: Language) -> Tag:
    mirror = view.mirror
    lead = (
        say("lead.own", count=len(mirror.registries)) if view.registry is None
        else say("lead.one", registry=view.registry.name, mirror=mirror.host)
    )  # fmt: skip
    notes = []
    if mirror.is_loopback:
        notes.append(say("note.loopback", host=mirror.name))
    if mirror.is_plain:
        notes.append(say("note.plain"))
    return tags.header(
        tags.p(_title(view, say), class_="what"),
        tags.h1(view.host),
        tags.p(inline_code(lead), class_="lead"),
        snippet_figure(Snippet(view.example + "\n"), say),
        [tags.p(inline_code(note), class_="note") for note in notes],
    )


def _clients(view: HomePageView, say: Language) -> Tag:
    part = section("clients", say("clients"))
    part(tags.p(inline_code(say("clients.what", url=view.mirror.url))))
    return part(render_tabs(view.mirror, view.setup, view.chosen, say))


def _test(view: HomePageView, say: Language) -> Tag:
    """Return the test; its result is a live region, so that a screen reader reads it."""
    part = section("test", say("test"))
    link = tags.a(
        say("test.again" if view.test.began else "test"), href=f"?test&lang={say.code}", class_="action"
    )
    result = tags.div(
        render_test(view.test, view.mirror.url, view.trials, say), id="test-result", role="status"
    )
    part(tags.p(say("test.what")), tags.p(link), result)
    if view.test.state in ("waiting", "late", "running"):
        address = f"?test={view.test.began:.0f}&lang={say.code}#test"
        part(Tag("noscript")(tags.p(tags.a(say("test.look"), href=address))))
    return part


def _pulls(view: HomePageView, say: Language) -> Tag:
    part = section("pulls", say("pulls"))
    events = f"pulls/events?lang={say.code}&test={view.test.began:.0f}"
    found = render_pulls(view.pulls, view.client.address, view.now, say)
    return part(tags.div(found, id="pull-list", **{"data-events": events}))


def _registries(view: HomePageView, say: Language) -> Tag:
    """List the registries, by host where they have one; one example is enough for the paths then."""
    mirror = view.mirror
    example = f"{mirror.by_path(mirror.example)}/{mirror.example.placeholder}"
    part = tags.details(tags.summary(say("registries.all", count=len(mirror.registries))), id="registries")
    part(tags.p(inline_code(say("registries.what", example=example))))
    by_name = any(each.host for each in mirror.registries)
    if by_name:
        part(tags.p(inline_code(say("registries.login"))))
    rows = (
        tags.tr(
            tags.th(each.path, scope="row"),
            tags.td(tags.code(each.host if by_name else f"{mirror.by_path(each)}/…")),
        )
        for each in mirror.registries
    )
    names = ("registries.name", "registries.host" if by_name else "registries.path")
    return part(table((say(name) for name in names), rows, "registries"))


def _archives(view: HomePageView, say: Language) -> Tag:
    part = tags.details(tags.summary(say("archives")), id="archives")
    return part(tags.p(inline_code(say("archives.what"))), snippet_figure(download_archive(view.mirror), say))


def render_text(view: HomePageView, say: Language) -> str:
    """Return an overview for a terminal."""
    mirror = view.mirror
    parts = [
        [_title(view, say)],
        [f"    {view.example}"],
        align_columns([[each.name, f"{mirror.by_path(each)}/…", each.host] for each in mirror.registries]),
        [say("text.clients")],
        align_columns(
            [[f"curl {mirror.url}/client/{c.name}", c.snippets(mirror)[0].path] for c in CLIENTS.values()]
        ),
        [say("text.archives")] if mirror.archives else [],
        [f"    {line}" for line in download_archive(mirror).text.splitlines()] if mirror.archives else [],
        [f"{say('images.held')}: {mirror.url}/images/"] if mirror.images else [],
        [say("pulls.of", address=view.client.address or view.client.user or "?")],
        [*list_pulls(view, say)],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def list_pulls(view: HomePageView, say: Language) -> Iterator[str]:
    """Yield the client's pulls as lines, or one that says why there are none."""
    found = view.pulls
    if not found.pulls:
        yield "    " + say(found.unknown or "pulls.none", address=view.client.address)
    rows = [
        [describe_age(view.now - each.began, say), name_image(each), describe_pull(each, say)]
        for each in found.pulls
    ]
    yield from align_columns(rows)


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
            "images": f"{mirror.url}/images/" if mirror.images else None,
            "pulls": None if view.pulls.unknown else [
                {**asdict(each), "began": format_timestamp(each.began)} for each in view.pulls.pulls
            ],
        },
        indent=2,
    )  # fmt: skip
