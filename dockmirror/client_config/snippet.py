"""The address of a mirror as clients reach it, and a client's configuration as snippets to copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import evolve, frozen

_LOOPBACK = re.compile(r"localhost|127(?:\.\d+){3}|\[::1\]")
HUB = "docker.io"
FILE_MARK = "# Written by 'dockmirror client', which overwrites this file as long as this line is here.\n"
"""The first line of files that may be written again and removed, if their format has comments."""


@frozen
class MirroredRegistry:
    """A registry that the mirror serves.

    :ivar name: the first part of image names, such as ``ghcr.io``.
    :ivar path: the same as a component of a path on the mirror's own host.
    :ivar server: the address of the registry itself, without a path.
    :ivar prefix: the beginning of its repositories' names there, which clients leave out; may be empty.
    :ivar host: its virtual host on the mirror, with the port; empty where no such name leads to it.
    """

    name: str
    path: str
    server: str
    host: str = ""
    prefix: str = ""

    @property
    def placeholder(self) -> str:
        """The repository's part of an image name in examples."""
        return "IMAGE" if self.name == HUB else "OWNER/IMAGE"


@frozen
class MirrorAddress:
    """The address of the mirror's own host, which serves all registries and takes no logins.

    :ivar host: includes the port unless it is the scheme's default.
    :ivar archives: the mirror offers images as archives.
    :ivar images: the mirror shows its clients which images it holds.
    """

    scheme: str
    host: str
    registries: tuple[MirroredRegistry, ...]
    archives: bool = False
    images: bool = False

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
        registries = (evolve(each, host="") for each in self.registries)
        return MirrorAddress(self.scheme, f"{name}{port}", tuple(registries), self.archives, self.images)


@frozen
class Snippet:
    """Lines to copy: a file, a part of one, or commands.

    :ivar text: ends with a newline.
    :ivar path: the file that the lines belong in; empty for commands.
    :ivar name: selects the snippet among those of its client; empty for the first one.
    :ivar comment: begins a comment in that file; empty where the format has none.
    :ivar is_file: the text is a complete file, which can be written as it is.
    """

    text: str
    path: str = ""
    name: str = ""
    comment: str = "# "
    is_file: bool = False

    def with_comment(self, after: str) -> str:
        """Return the lines below a comment that names the file and the command to run afterwards.

        :param after: the command; may be empty.
        """
        notes = [self.path, f"then: {after}" if after and self.path else ""]
        head = "".join(f"{self.comment}{note}\n" for note in notes if note and self.comment)
        return head + self.text


MakeSnippets = Callable[[MirrorAddress], Sequence[Snippet]]


@frozen
class ClientConfig:
    """The configuration of one client.

    :ivar name: selects the client on the command line and in addresses.
    :ivar title: the name as its makers write it.
    :ivar snippets: makes the snippets that people see, the most important first.
    :ivar after: the command that makes the client read its configuration again; empty where none is needed.
    :ivar more: makes further snippets of the same kind, which can be selected by name.
    :ivar system: the key of the systems that these instructions are for; empty for all of them.
    :ivar tab: the client whose tab of the page has these instructions, where it is another one.
    """

    name: str
    title: str
    snippets: MakeSnippets
    after: str = ""
    more: MakeSnippets = lambda _: ()
    system: str = ""
    tab: str = ""

    def snippet(self, mirror: MirrorAddress, name: str = "") -> Snippet | None:
        """Return the snippet of that name, by default the first, or None."""
        first, *others = self.snippets(mirror)
        if name in ("", first.name):
            return first
        return next((each for each in (*others, *self.more(mirror)) if each.name == name), None)

    def files(self, mirror: MirrorAddress) -> list[Snippet]:
        """Return the snippets that are complete files, one for each path."""
        found = {each.path: each for each in (*self.snippets(mirror), *self.more(mirror)) if each.is_file}
        return list(found.values())

    def file_text(self, file: Snippet) -> str:
        """Return the text of one of ``files`` as it is written, below a mark if it can have comments."""
        return FILE_MARK + file.text if file.comment else file.text

    def undo(self, mirror: MirrorAddress) -> str:
        """Return commands that take the configuration back; empty if other settings may share its file."""
        files = [each.path for each in self.files(mirror) if each.comment]
        return "".join(f"{line}\n" for line in (f"rm {' '.join(files)}", self.after) if files and line)
