"""A registry that redirects every request for content without looking, as registry.k8s.io does."""

from __future__ import annotations

from .server import Exchange, Server


class Redirector(Server):
    """Answers ``/v2/`` itself, and sends everything else on to another registry.

    :ivar target: the origin of that registry.
    :ivar requests: the methods and paths, in order.
    """

    def __init__(self) -> None:
        class Redirect(_Redirect):
            redirector = self

        super().__init__("127.0.0.1", Redirect)
        self.target = ""
        self.requests: list[tuple[str, str]] = []


class _Redirect(Exchange):
    redirector: Redirector

    def do_GET(self) -> None:
        self.redirector.requests.append((self.command, self.path))
        if self.path == "/v2/":
            self.answer(200, b"{}", Content_Type="application/json")
        else:
            self.answer(307, Location=f"{self.redirector.target}{self.path}")

    do_HEAD = do_GET
