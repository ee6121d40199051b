"""A client, and what it has to be given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from .mirror_address import MirrorAddress


@frozen
class Snippet:
    """Lines to copy.

    :ivar text: ends with the end of a line.
    :ivar path: the file that they are, or a part of; empty for commands.
    :ivar name: by which it is asked for among those of its client; the first one has none.
    :ivar comment: what begins a comment there; empty where there is none.
    :ivar whole: whether the text is a file by itself, which can be written as it is.
    """

    text: str
    path: str = ""
    name: str = ""
    comment: str = "# "
    whole: bool = False

    def commented(self, after: str) -> str:
        """The lines below a comment that says where they go, and what is to be done then.

        :param after: a command; may be empty.
        """
        notes = [self.path, f"then: {after}" if after and self.path else ""]
        head = "".join(f"{self.comment}{note}\n" for note in notes if note and self.comment)
        return head + self.text


Snippets = Callable[[MirrorAddress], Sequence[Snippet]]


@frozen
class ClientConfig:
    """A client.

    :ivar name: as it is asked for.
    :ivar title: as its makers write it.
    :ivar snippets: what people are shown, the most important first.
    :ivar after: the command that brings its configuration into force; empty where that is not needed.
    :ivar more: what can be asked for by name besides, being more of the same.
    """

    name: str
    title: str
    snippets: Snippets
    after: str = ""
    more: Snippets = lambda _: ()

    def snippet(self, mirror: MirrorAddress, name: str = "") -> Snippet | None:
        """The snippet of that name, if there is one; the first where none is named."""
        first, *others = self.snippets(mirror)
        if name in ("", first.name):
            return first
        return next((each for each in (*others, *self.more(mirror)) if each.name == name), None)

    def files(self, mirror: MirrorAddress) -> list[Snippet]:
        """The files that can be written as they are."""
        found = {each.path: each for each in (*self.snippets(mirror), *self.more(mirror)) if each.whole}
        return list(found.values())
