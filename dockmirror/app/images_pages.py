"""The pages of images on the mirror's own host, built from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from twisted.web.resource import Resource

from ..config.settings import Settings
from ..http.server_request import ServerRequest
from ..middleware.rules import PullRules
from ..oci.errors import Unsupported
from ..web.filter import RefusalResource
from ..web.late_resource import LateResource
from .account_choice import AccountChoice
from .naming import mirror_address, pull_name
from .stack import HostRegistries, StackContext

if TYPE_CHECKING:
    from ..web.images.visibility import ClientViewer, VisibleUpstream


def make_images_resource(
    settings: Settings, context: StackContext, stacks: Mapping[str, HostRegistries]
) -> Resource:
    """Return the pages, which are imported when somebody requests one.

    :param stacks: the registries of each upstream, by its name in the settings.
    """
    cache = context.cache
    if not settings.images or cache is None:
        return RefusalResource(Unsupported("this mirror shows no images: 'images' is not set", status=404))

    def make() -> Resource:
        from ..web.images.catalog import ImageCatalog
        from ..web.images.images_resource import ImagesContext, ImagesResource
        from ..web.images.pull_figures import PullFigures

        viewers = Viewers(settings, stacks)
        history = context.history.reader if context.history else None
        return ImagesResource(
            ImagesContext(
                ImageCatalog(cache.index),
                PullFigures(history, context.clock.seconds),
                cache.tag_history,
                cache.in_thread,
                context.clock,
                viewers.find,
                viewers.find_pull,
            )
        )

    return LateResource(make)


class Viewers:
    """Tells what each client may see: a user of the mirror more than a client without a name."""

    def __init__(self, settings: Settings, stacks: Mapping[str, HostRegistries]) -> None:
        self._settings = settings
        self._stacks = stacks

    def find(self, request: ServerRequest) -> ClientViewer:
        client = request.admitted_client
        return self.viewer(is_user=client is not None and client.user is not None)

    def viewer(self, is_user: bool) -> ClientViewer:
        """Return what a client may see, whose name the mirror knows or not."""
        from ..web.images.visibility import ClientViewer

        return ClientViewer(self._upstreams(), is_user)

    def find_pull(self, request: ServerRequest, image: str) -> str:
        """Return the name by which the client pulls an image from the mirror's own host."""
        client = request.admitted_client
        assert client is not None, "the gate lies before every host"
        host = mirror_address(self._settings, client.scheme, client.host).host
        return f"{host}/{pull_name(image, self._settings)}"

    def _upstreams(self) -> list[VisibleUpstream]:
        from ..web.images.visibility import VisibleUpstream

        return [
            VisibleUpstream(
                name,
                upstream.canonical,
                stack.public,
                AccountChoice(name, upstream).has_account,
                PullRules(f"upstreams.{name}", upstream.allow, upstream.deny),
            )
            for name, upstream in self._settings.upstreams.items()
            if (stack := self._stacks.get(name)) is not None and stack.public is not None
        ]
