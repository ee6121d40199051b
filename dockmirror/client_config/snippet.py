"""A client's configuration, as snippets to copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from .mirror_address import MirrorAddress


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

    def commented(self, after: str) -> str:
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
    """

    name: str
    title: str
    snippets: MakeSnippets
    after: str = ""
    more: MakeSnippets = lambda _: ()

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
