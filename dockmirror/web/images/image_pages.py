"""The pages of all repositories, of one repository with its tags, and of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from attrs import frozen
from twisted.web.template import Tag, tags

from ...interfaces import Sighting
from ...oci.digest import Digest
from ..pages.page import Language
from .blocks import (
    NONE,
    Content,
    Crumb,
    badge,
    digest_code,
    facts,
    image_path,
    moment,
    page,
    pulls_link,
    rows,
    size,
)
from .catalog import HeldDetails, HeldLayer, HeldPlatform, HeldRepository, HeldTag, PullFigure

ACTIONS = ("pin", "unpin", "remove", "warm", "refresh", "verify", "export")
"""The actions that operators may take."""
_SHOWN_REPOSITORIES = 3
_MAX_PLATFORMS = 12
_MAX_SIGHTINGS = 50
PAGE_SIZE = 100
"""Repositories on a page."""
TAGS_SIZE = 20
"""Tags on a page."""


@frozen
class DetailsView:
    """An image.

    :ivar pull: the reference by which clients pull it from the mirror.
    :ivar figure: how often it was pulled; None without a history.
    :ivar sightings: the digests that its tag has named, newest first.
    :ivar sharing: of each layer that other repositories have, those which the viewer may see.
    """

    name: str
    details: HeldDetails
    pull: str
    figure: PullFigure | None
    sightings: Sequence[Sighting]
    sharing: Mapping[Digest, Sequence[str]]
    is_operator: bool
    is_pinned: bool = False


def render_details(view: DetailsView, say: Language) -> Tag:
    listed = view.details.tag.listed
    reference = listed.tag or listed.image.digest
    crumbs = [Crumb(say("images"), "/images/"), Crumb(view.name, image_path(view.name))]
    return page(
        say, f"{view.name}{':' if listed.tag else '@'}{reference}", crumbs,
        tags.figure(tags.pre(tags.code(f"docker pull {view.pull}"), tabindex="0", class_="pull")),
        facts(_facts(view, say)),
        _actions(view, say) if view.is_operator else "",
        tags.section(tags.h2(say("contents")), _platforms(view, say)),
        _sightings(view, say) if view.sightings else "",
    )  # fmt: skip


def _facts(view: DetailsView, say: Language) -> list[tuple[str, Content]]:
    held = view.details.tag
    pairs: list[tuple[str, Content]] = [
        (say("digest"), tags.code(str(held.listed.image.digest))),
        (say("platforms" if held.listed.platforms else "in.cache"), platform_badges(held, say)),
        (say("size"), size(held.listed.size)),
        (say("beside"), artifact_badges(held, say)),
    ]
    if held.confirmed:
        pairs.append((say("confirmed"), moment(held.confirmed, say)))
    if view.figure is not None:
        count: Content = str(view.figure.pulls)
        if view.is_operator:
            tag, digest = held.listed.tag, held.listed.image.digest
            image = f"{view.name}:{tag}" if tag else f"{view.name}@{digest}"
            count = pulls_link(image, str(view.figure.pulls))
        pulls: Content = [count, " · ", moment(view.figure.last, say)]
        pairs.append((say("pulls.last"), pulls if view.figure.pulls else say("pulls.none")))
    if view.is_operator:
        pairs.append((say("pinned"), say("yes" if view.is_pinned else "no")))
    return pairs


def _actions(view: DetailsView, say: Language) -> Tag:
    listed = view.details.tag.listed
    path = image_path(view.name, listed.tag or listed.image.digest)
    unfit = {"pin" if view.is_pinned else "unpin", *(() if listed.tag else ("refresh",))}
    links = (
        tags.li(tags.a(say(f"action.{each}"), href=f"{path}?action={each}"))
        for each in ACTIONS
        if each not in unfit
    )
    return tags.nav(tags.ul(links, class_="actions"), **{"aria-label": say("actions")})


def _platforms(view: DetailsView, say: Language) -> Content:
    shown = view.details.platforms[:_MAX_PLATFORMS]
    hidden = len(view.details.platforms) - len(shown)
    return [
        *(_platform(each, view, say) for each in shown),
        tags.p(say("and.more", count=hidden)) if hidden else "",
    ]


def _platform(each: HeldPlatform, view: DetailsView, say: Language) -> Content:
    complete = each.image.data is not None and not each.image.find_missing()
    title = str(each.platform) if each.platform else say("image")
    heading = tags.h3(title, " ", badge(say("complete" if complete else "incomplete"), complete))
    if each.image.data is None:
        return [heading, tags.p(say("platform.absent"), class_="none")]
    names = [say("layer"), say("size"), say("held"), say("shared")]
    cells = (_layer_cells(layer, view, say) for layer in each.layers)
    manifest = tags.p(say("manifest"), " ", digest_code(each.image.digest), class_="note")
    more = tags.p(say("and.more", count=each.hidden)) if each.hidden > 0 else ""
    return [heading, manifest, rows(names, cells, title), more]


def _layer_cells(layer: HeldLayer, view: DetailsView, say: Language) -> list[Content]:
    return [
        [digest_code(layer.digest), f" {say('layer.config')}" if layer.is_config else ""],
        size(layer.size),
        badge(say("held.yes" if layer.is_held else "held.no"), layer.is_held),
        _sharing(view.sharing.get(layer.digest, ()), say),
    ]


def _sharing(repositories: Sequence[str], say: Language) -> Content:
    if not repositories:
        return NONE
    links = [[tags.a(name, href=image_path(name)), " "] for name in repositories[:_SHOWN_REPOSITORIES]]
    hidden = len(repositories) - _SHOWN_REPOSITORIES
    return [*links, say("and.more", count=hidden) if hidden > 0 else ""]


def _sightings(view: DetailsView, say: Language) -> Tag:
    names = [say("digest"), say("seen.first"), say("seen.last")]
    cells = (
        [digest_code(each.digest), moment(each.first, say), moment(each.last, say)]
        for each in view.sightings[:_MAX_SIGHTINGS]
    )
    return tags.section(tags.h2(say("sightings")), rows(names, cells, say("sightings")))


@frozen
class RepositoryRow:
    """A repository in the list; ``figure`` is None without a history."""

    name: str
    tags: int
    bytes: int
    figure: PullFigure | None


@frozen
class IndexView:
    """The list of repositories, or a part of it.

    :ivar registries: registries that hold something, with their bytes; None where these are not shown.
    :ivar next: the name after which the next page begins; empty on the last one.
    """

    query: str
    registries: Sequence[tuple[str, int | None]]
    repositories: Sequence[RepositoryRow]
    next: str
    is_operator: bool


def render_index(view: IndexView, say: Language) -> Tag:
    search = tags.form(
        tags.div(
            tags.label(say("search"), for_="q"),
            tags.input(type="search", id="q", name="q", value=view.query, maxlength="255"),
        ),
        tags.button(say("search.do"), class_="act"),
        method="get", action="/images/", class_="search", role="search",
    )  # fmt: skip
    registries = tags.p(
        say("registries"), " ",
        (_registry_link(name, held) for name, held in view.registries),
    )  # fmt: skip
    more = f"/images/?{urlencode({'q': view.query, 'after': view.next})}"
    return page(
        say, say("images"), (),
        tags.p(say("images.operator" if view.is_operator else "images.public"), class_="note"),
        tags.p(tags.a(say("history"), href="/history")) if view.is_operator else "",
        search,
        registries if view.registries else "",
        _repositories(view, say),
        tags.p(tags.a(say("more"), href=more)) if view.next else "",
        _fetch_form(say) if view.is_operator else "",
        query={"q": view.query} if view.query else {},
    )  # fmt: skip


def _registry_link(name: str, held: int | None) -> Content:
    return [
        tags.a(name, href=f"/images/?{urlencode({'q': f'{name}/'})}"),
        f" {size(held)}" if held else "",
        "  ",
    ]


def _repositories(view: IndexView, say: Language) -> Content:
    if not view.repositories:
        return tags.p(say("nothing.found" if view.query else "nothing.held"), class_="none")
    names = [say("repository"), say("tags"), say("size"), say("pulls"), say("pulled")]
    cells = (
        [
            tags.a(each.name, href=image_path(each.name)),
            str(each.tags),
            size(each.bytes),
            _pulls(each, view.is_operator),
            moment(each.figure.last if each.figure else 0.0, say),
        ]
        for each in view.repositories
    )
    return rows(names, cells, say("repositories"))


def _pulls(row: RepositoryRow, is_operator: bool) -> Content:
    if row.figure is None:
        return NONE
    count = str(row.figure.pulls)
    return pulls_link(row.name, count) if is_operator and row.figure.pulls else count


def _fetch_form(say: Language) -> Tag:
    return tags.form(
        tags.input(type="hidden", name="action", value="warm"),
        tags.div(
            tags.label(say("fetch.image"), for_="image"),
            tags.input(type="text", id="image", name="image", required="", maxlength="500"),
        ),
        tags.button(say("action.warm"), class_="act"),
        method="get", action="/images/", class_="search",
    )  # fmt: skip


@frozen
class RepositoryView:
    """A repository; ``figures`` are those of its tags, None without a history.

    :ivar since: when the upstream named the digest of each tag first, as far as it is known.
    :ivar after: the tag after which the page begins.
    """

    held: HeldRepository
    figures: Mapping[str, PullFigure] | None
    since: Mapping[str, float]
    after: str
    is_operator: bool


def render_repository(view: RepositoryView, say: Language) -> Tag:
    name, held = view.held.name, view.held
    more = f"{image_path(name)}?{urlencode({'after': held.next})}"
    count = say("repository.count", tags=len(held.tags), size=size(held.bytes))
    links_to_pulls = view.is_operator and view.figures is not None
    return page(
        say, name, [Crumb(say("images"), "/images/")],
        tags.p(count, class_="note"),
        tags.p(pulls_link(name, say("history.month"))) if links_to_pulls else "",
        _tag_table(say("tags"), held.page, view, say) if held.page else "",
        tags.p(tags.a(say("more"), href=more)) if held.next else "",
        [tags.section(tags.h2(say("untagged")), _tag_table(say("untagged"), held.untagged, view, say))]
        if held.untagged else "",
        query={"after": view.after} if view.after else {},
    )  # fmt: skip


def _tag_table(caption: str, images: Sequence[HeldTag], view: RepositoryView, say: Language) -> Tag:
    return rows(_columns(say), (_tag_cells(each, view, say) for each in images), caption)


def _columns(say: Language) -> list[str]:
    return [
        say("tag"),
        say("digest"),
        say("since"),
        say("platforms"),
        say("size"),
        say("beside"),
        say("pulled"),
    ]


def _tag_cells(each: HeldTag, view: RepositoryView, say: Language) -> list[Content]:
    listed = each.listed
    reference = listed.tag or listed.image.digest
    figure = (view.figures or {}).get(str(reference), PullFigure())
    label: Content = str(listed.tag) if listed.tag else digest_code(listed.image.digest)
    return [
        tags.a(label, href=image_path(view.held.name, reference)),
        digest_code(listed.image.digest),
        moment(view.since.get(str(reference), 0.0), say),
        platform_badges(each, say),
        size(listed.size),
        artifact_badges(each, say),
        [moment(figure.last, say), f" ({figure.pulls})" if figure.pulls else ""],
    ]


def platform_badges(each: HeldTag, say: Language) -> Content:
    """Return the platforms of an image, complete or not; of one without an index, whether it is complete."""
    platforms = each.listed.platforms
    if not platforms:
        complete = each.listed.is_complete
        return badge(say("complete" if complete else "incomplete"), complete)
    ordered = sorted(platforms.items(), key=lambda item: (not item[1], item[0]))
    found = [badge(name if held else say("platform.incomplete", name=name), held) for name, held in ordered]
    hidden = len(found) - 4
    return [*found[:4], say("and.more", count=hidden) if hidden > 0 else ""]


def artifact_badges(each: HeldTag, say: Language) -> Content:
    """Return the kinds of artifacts that are held for an image."""
    return [badge(say(f"artifact.{kind}"), True) for kind in sorted(each.artifacts)] or NONE
