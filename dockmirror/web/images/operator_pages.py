"""The actions of operators on the pages: a form that asks for confirmation, and the action itself."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from functools import partial

from attrs import frozen
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.web.template import Tag, tags

from ...archive.archive_plan import ArchiveContentError, ArchivePlan, read_archive
from ...body.consumers import CoroutineProducer
from ...config.notation import format_size
from ...http.server_request import ServerRequest, make_response_consumer, parse_pairs
from ...oci.errors import Denied, RegistryError
from ...oci.manifest import Platform
from ...oci.request import Repository
from ...store.packed_images import open_contents
from ..auth import Actor, TokenAuth
from ..operator_actions import ImageActions, Removal, Verification
from ..pages.page import Language
from .blocks import Content, Crumb, image_path, page
from .image_pages import ACTIONS

_HOUR = 3600.0
_READING = ("verify", "export")
_WITH_PLATFORMS = ("pin", "warm", "refresh")


@frozen
class ActionOutcome:
    """The result of an action: a notice, or an archive that is sent."""

    notice: str = ""
    archive: ArchivePlan | None = None
    has_failed: bool = False


class OperatorPages:
    """Confirms and runs actions; each form bears a secret that no page of another site can know."""

    def __init__(self, actions: ImageActions, auth: TokenAuth, clock: IReactorTime) -> None:
        self.actions = actions
        self._auth = auth
        self._clock = clock
        self._key = secrets.token_bytes(32)

    async def confirmation(
        self, request: ServerRequest, action: str, image: str, path: str, say: Language
    ) -> Tag:
        """Return the page that asks for confirmation.

        :param path: of the image's page.
        :raises RegistryError: for an unknown action, a missing token, or an image that is not held.
        """
        actor = await self._actor(request, action)
        self.actions.parse(image)
        effects: Content = ""
        if action == "remove":
            effects = _removal_effects(await self.actions.plan_removal(image), say)
        fields = {"action": action, "image": image, "proof": self._proof(actor, action, image, 0)}
        platforms = [
            tags.p(
                tags.label(say("confirm.platforms"), for_="platforms"),
                tags.input(type="text", id="platforms", name="platforms", maxlength="500"),
            )
        ]
        kind = "act danger" if action == "remove" else "act"
        form = tags.form(
            [tags.input(type="hidden", name=name, value=value) for name, value in fields.items()],
            platforms if action in _WITH_PLATFORMS else "",
            tags.p(tags.button(say(f"action.{action}"), class_=kind), "  ", tags.a(say("cancel"), href=path)),
            method="post", action="/images/",
        )  # fmt: skip
        crumbs = [Crumb(say("images"), "/images/"), Crumb(image, path)]
        title = f"{say(f'action.{action}')}: {image}"
        question = tags.p(say(f"confirm.{action}"), class_="lead")
        return page(say, title, crumbs, question, effects, form, query={"action": action, "image": image})

    async def run(self, request: ServerRequest, say: Language) -> tuple[str, str, ActionOutcome]:
        """Run the action of a confirmed form; return the action, the image and the outcome.

        :raises RegistryError: when the form is malformed or forged, or the action is refused.
        """
        assert request.content is not None, "the site collects bodies"
        form = dict(parse_pairs(request.content.read()))
        action, image = form.get("action", ""), form.get("image", "")
        actor = await self._actor(request, action)
        proofs = [self._proof(actor, action, image, age) for age in (0, 1)]
        if not any(hmac.compare_digest(form.get("proof", "").encode(), each.encode()) for each in proofs):
            raise Denied("this form is too old, or was not made by this mirror: open its page again")
        try:
            platforms = tuple(map(Platform.parse, form.get("platforms", "").split()))
        except ValueError as error:
            raise RegistryError(f"platforms: {error}", status=400) from None
        return action, image, await self._run(actor, action, image, platforms, say)

    async def _run(
        self, actor: Actor, action: str, image: str, platforms: tuple[Platform, ...], say: Language
    ) -> ActionOutcome:
        if action == "export":
            return ActionOutcome(archive=await self.actions.export(actor, image, None))
        if action == "verify":
            return _verified(await self.actions.verify(actor, image), say)
        if action == "remove":
            removal = await self.actions.remove(actor, image)
            return ActionOutcome(say("done.remove", freed=format_size(removal.freed)))
        if action == "pin":
            await self.actions.pin(actor, image, platforms)
        elif action == "unpin":
            await self.actions.unpin(actor, image)
        else:
            await self.actions.warm(actor, image, platforms, refresh=action == "refresh")
        return ActionOutcome(say(f"done.{action}"))

    def outcome_page(self, action: str, image: str, outcome: ActionOutcome, say: Language) -> Tag:
        """Return the page that follows an action."""
        path = "/images/" if action == "remove" else self._path(image)
        kind = "notice failed" if outcome.has_failed else "notice"
        title = f"{say(f'action.{action}')}: {image}"
        crumbs = [Crumb(say("images"), "/images/"), *([Crumb(image, path)] if action != "remove" else [])]
        return page(say, title, crumbs, tags.p(outcome.notice, class_=kind, role="status"))

    def _path(self, image: str) -> str:
        repository, reference = self.actions.parse(image)
        return image_path(repository.name, reference)

    async def is_pinned(self, repository: Repository, reference: object) -> bool:
        """Return whether the image is pinned."""
        return any(
            (pin.repository, pin.reference) == (repository, reference) for pin, _ in await self.actions.pins()
        )

    async def send_archive(self, request: ServerRequest, image: str, plan: ArchivePlan) -> None:
        """Send an archive, and cut it off if a content proves to be corrupt."""
        name = Repository(self.actions.parse(image)[0].name).name.rpartition("/")[2]
        request.setHeader("Content-Type", "application/x-tar")
        request.setHeader("Content-Length", str(plan.size))
        request.setHeader("Content-Disposition", f'attachment; filename="{name}.tar"')
        pieces = read_archive(plan, open_contents(self.actions.root))
        consumer: IConsumer = make_response_consumer(request)
        producer = CoroutineProducer(consumer, self._clock, lambda: None)
        try:
            await producer.follow(self._write(producer, pieces))
        except (ArchiveContentError, OSError) as error:
            request.reason = str(error)
            request.abort()
            return
        request.finish()

    async def _write(self, producer: CoroutineProducer, pieces: Iterator[bytes]) -> None:
        producer.register()
        while (piece := await self.actions.in_thread(partial(next, pieces, None))) is not None:
            await producer.ready()
            producer.write(piece)

    async def _actor(self, request: ServerRequest, action: str) -> Actor:
        if action not in ACTIONS:
            raise RegistryError(f"expected one of the actions {', '.join(ACTIONS)}", status=400)
        return await self._auth.actor(request, "read" if action in _READING else "write")

    def _proof(self, actor: Actor, action: str, image: str, age: int) -> str:
        hour = int(self._clock.seconds() // _HOUR) - age
        text = "\0".join((actor.token, action, image, str(hour)))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _removal_effects(removal: Removal, say: Language) -> Content:
    deletions = [
        tags.li(
            say(
                "deletion",
                repository=str(plan.repository),
                tags=say("deletion.tags", tags=", ".join(map(str, plan.tags)))
                if plan.tags
                else say("deletion.no_tags"),
                count=len(plan.contents),
            )
        )
        for plan in removal.plans
    ]
    pinned = [
        tags.p(say("confirm.remove.pinned", image=str(pin)), class_="notice failed") for pin in removal.pinned
    ]
    return [tags.ul(deletions), pinned]


def _verified(found: Verification, say: Language) -> ActionOutcome:
    if found.corrupt:
        digests = ", ".join(str(each.digest) for each in found.corrupt[:5])
        notice = say("failed.verify", count=len(found.corrupt), all=found.contents, digests=digests)
        return ActionOutcome(notice, has_failed=True)
    return ActionOutcome(say("done.verify", count=found.contents, size=format_size(found.bytes)))
