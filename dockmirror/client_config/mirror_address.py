"""The address of a mirror and of its registries, as clients reach them."""

from __future__ import annotations

import re

from attrs import frozen

_LOOPBACK = re.compile(r"localhost|127(?:\.\d+){3}|\[::1\]")
HUB = "docker.io"


@frozen
class MirroredRegistry:
    """A registry that the mirror serves.

    :ivar name: the first part of image names, such as ``ghcr.io``.
    :ivar path: the same as a component of a path on the mirror's own host.
    :ivar server: the address of the registry itself.
    :ivar host: its virtual host on the mirror, with the port; empty where no such name leads to it.
    """

    name: str
    path: str
    server: str
    host: str = ""

    @property
    def placeholder(self) -> str:
        """The repository's part of an image name in examples."""
        return "IMAGE" if self.name == HUB else "OWNER/IMAGE"


@frozen
class MirrorAddress:
    """The address of the mirror's own host, which serves all registries and takes no logins.

    :ivar host: includes the port unless it is the scheme's default.
    :ivar archives: the mirror offers images as archives.
    """

    scheme: str
    host: str
    registries: tuple[MirroredRegistry, ...]
    archives: bool = False

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    @property
    def is_plain(self) -> bool:
        """The mirror is reached without TLS, which most clients have to allow explicitly."""
        return self.scheme == "http"

    @property
    def name(self) -> str:
        """The host without the port."""
        return re.sub(r":\d*$", "", self.host)

    @property
    def is_loopback(self) -> bool:
        """Only the mirror's own machine can use this address."""
        return bool(_LOOPBACK.fullmatch(self.name.lower()))

    @property
    def example(self) -> MirroredRegistry:
        """The registry to use in examples: ghcr.io, or else the last one."""
        return next((each for each in self.registries if each.name == "ghcr.io"), self.registries[-1])

    def by_path(self, registry: MirroredRegistry) -> str:
        """Return the prefix of image names for this registry on the mirror's own host."""
        return f"{self.host}/{registry.path}"

    def with_host_name(self, name: str) -> MirrorAddress:
        """Return this mirror under another host name, which has no virtual hosts."""
        port = self.host.removeprefix(self.name)
        registries = (MirroredRegistry(each.name, each.path, each.server) for each in self.registries)
        return MirrorAddress(self.scheme, f"{name}{port}", tuple(registries), self.archives)
