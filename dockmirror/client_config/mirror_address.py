"""A mirror as its clients reach it."""

from __future__ import annotations

import re

from attrs import frozen

_LOOPBACK = re.compile(r"localhost|127(?:\.\d+){3}|\[::1\]")
HUB = "docker.io"


@frozen
class MirroredRegistry:
    """One of the registries that are mirrored.

    :ivar name: what names of images begin with.
    :ivar path: the same as a part of a path, on the mirror's own host.
    :ivar server: where clients find the registry itself.
    :ivar host: its virtual host, with the port; empty where no such name leads to the mirror.
    """

    name: str
    path: str
    server: str
    host: str = ""

    @property
    def placeholder(self) -> str:
        """A repository of it, for examples."""
        return "IMAGE" if self.name == HUB else "OWNER/IMAGE"


@frozen
class MirrorAddress:
    """The mirror by its own host, which serves all registries and takes no logins.

    :ivar host: with the port where it is not the scheme's.
    :ivar archives: whether it gives images as archives.
    """

    scheme: str
    host: str
    registries: tuple[MirroredRegistry, ...]
    archives: bool = False

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://{self.host}"

    @property
    def plain(self) -> bool:
        """Whether it is reached without TLS, which most clients have to be told."""
        return self.scheme == "http"

    @property
    def name(self) -> str:
        """Its host without the port."""
        return re.sub(r":\d*$", "", self.host)

    @property
    def loopback(self) -> bool:
        """Whether only the mirror's own machine reaches it so."""
        return bool(_LOOPBACK.fullmatch(self.name.lower()))

    @property
    def other(self) -> MirroredRegistry:
        """A registry for examples, not Docker Hub if there is one."""
        return next((each for each in self.registries if each.name == "ghcr.io"), self.registries[-1])

    def by_path(self, registry: MirroredRegistry) -> str:
        """A registry's place on it."""
        return f"{self.host}/{registry.path}"

    def at(self, name: str) -> MirrorAddress:
        """The same mirror under another name of its host, by which nothing else leads there."""
        port = self.host.removeprefix(self.name)
        registries = (MirroredRegistry(each.name, each.path, each.server) for each in self.registries)
        return MirrorAddress(self.scheme, f"{name}{port}", tuple(registries), self.archives)
