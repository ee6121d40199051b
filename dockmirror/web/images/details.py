"""The page of one image: its platforms, its layers, and the digests that its tag has named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from .catalog import HeldDetails, HeldLayer, HeldPlatform
from .listing import artifact_badges, platform_badges
from .pull_figures import PullFigure

ACTIONS = ("pin", "unpin", "remove", "warm", "refresh", "verify", "export")
"""The actions that operators may take."""
_SHOWN_REPOSITORIES = 3
_MAX_PLATFORMS = 12
_MAX_SIGHTINGS = 50


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
