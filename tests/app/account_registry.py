"""A registry whose users may read different repositories, and that notes credentials where none belong."""

from __future__ import annotations

import json
import re
from typing import Any

from ..fake_registry import MANIFEST, basic, digest, error, ranged
from ..fakes import Reply, Seen, World
from ..shelf import image

HOST, AUTH, CDN = "registry.example", "auth.example", "cdn.example"
NOBODY = "nobody"
USERS = {"rest": "rests-s3cret", "a": "as-s3cret", "b": "bs-s3cret"}
PASSWORDS = {
    "DOCKMIRROR_PASSWORD_WORK": USERS["rest"],
    "DOCKMIRROR_PASSWORD_WORK__TEAM_A": USERS["a"],
    "DOCKMIRROR_PASSWORD_WORK__TEAM_B": USERS["b"],
}
REPOSITORIES = ("a/one", "b/one", "c/one")
BLOB = bytes(range(256)) * 4
IMAGES = {name: image(name.encode(), BLOB) for name in ("old", "new")}
_RESOURCE = re.compile(r"/v2/(.+)/(manifests|blobs|tags)/([^/]+)")

Patterns = tuple[tuple[str, ...], tuple[str, ...]]
"""Those of account a, and of account b."""


def owner(repository: str, patterns: Patterns) -> str:
    """Return the user that the mirror is to ask for a repository as."""
    for user, its in zip("ab", patterns, strict=True):
        if any(re.fullmatch(each.replace("*", "[^/]*"), repository) for each in its):
            return user
    return "rest"


class SharedRegistry(World):
    """A registry with a token service and a network that delivers blobs, for several users.

    :ivar readers: the users who may read each repository.
    :ivar redirects: repositories whose content is said to be in another one.
    :ivar given: the users to whom content of a repository was given.
    :ivar wrong: what reached it and should not have.
    """

    def __init__(self) -> None:
        super().__init__({HOST: self._registry, AUTH: self._tokens, CDN: self._deliver})
        self.readers = {name: {"rest", "a", "b"} for name in REPOSITORIES}
        self.redirects: dict[str, str] = {}
        self.limited: set[str] = set()
        self.remaining = dict(zip((*USERS, NOBODY), (90, 80, 70, 60), strict=True))
        self.takes_tokens = True
        self.tag = "old"
        self.given: set[tuple[str, str]] = set()
        self.patterns: Patterns = (("a/*",), ("b/*",))
        self.wrong: list[str] = []
        self._users = {basic(name, password): name for name, password in USERS.items()}
        self._issued: dict[str, tuple[str, str]] = {}

    def settings(self) -> dict[str, Any]:
        """Return the settings of a mirror that has the accounts."""
        accounts = [
            {"name": f"team-{user}", "repositories": list(its), "username": user}
            for user, its in zip("ab", self.patterns, strict=True)
        ]
        upstream = {
            "url": f"https://{HOST}",
            "realms": [f"https://{AUTH}"],
            "username": "rest",
            "accounts": accounts,
            "refresh_ahead": False,  # whose requests would come at any time
        }
        return {"networks": ["private"], "upstreams": {"work": upstream}}

    def forget_tokens(self) -> None:
        """Let no token be of use any more, and know still whose it was."""
        self._issued = {token: (user, "") for token, (user, _) in self._issued.items()}

    def _tokens(self, seen: Seen) -> Reply:
        user = self._users.get(seen.authorization or "", NOBODY)
        scope = dict(seen.query)["scope"]
        repository = scope.split(":")[1]
        self._check(seen, user, None if scope.startswith("registry:") else repository)
        token = f"t0ken-{len(self._issued)}"
        self._issued[f"Bearer {token}"] = user, repository
        body = json.dumps({"token": token, "expires_in": 300}).encode()
        return Reply(200, body, (("Content-Type", "application/json"),))

    def _deliver(self, seen: Seen) -> Reply:
        if seen.authorization:
            self.wrong.append(f"credentials for the host of the blobs: {seen.url}")
        return ranged(seen, BLOB)

    def _registry(self, seen: Seen) -> Reply:
        match = _RESOURCE.fullmatch(seen.path)
        repository = match[1] if match else ""
        user, scope = self._issued.get(seen.authorization or "", (NOBODY, ""))
        user = self._users.get(seen.authorization or "", user)
        self._check(seen, user, repository or None)
        if user in self.limited:
            return error(429, "TOOMANYREQUESTS", "too many requests", ("Retry-After", "60"))
        is_valid = scope == (repository or "catalog") if self.takes_tokens else user != NOBODY
        if not is_valid or (repository and user not in self.readers[repository]):
            service = f'Bearer realm="https://{AUTH}/token",service="{HOST}"'
            challenge = service if self.takes_tokens else 'Basic realm="registry"'
            return error(401, "UNAUTHORIZED", "log in", ("WWW-Authenticate", challenge))
        if match is None:
            listed = json.dumps({"repositories": REPOSITORIES}).encode()
            return Reply(200, listed, (("Content-Type", "application/json"),))
        if (other := self.redirects.get(repository)) is not None:
            return Reply(307, b"", (("Location", seen.path.replace(repository, other, 1)),))
        # Whoever is given it by a redirect is given it by the repository that redirects.
        sources = [source for source, other in self.redirects.items() if other == repository]
        self.given.update((user, each) for each in (repository, *sources))
        quota = (("RateLimit-Limit", "100;w=21600"), ("RateLimit-Remaining", str(self.remaining[user])))
        return self._content(match[2], match[3]).having(*quota)

    def _content(self, kind: str, reference: str) -> Reply:
        if kind == "tags":
            return Reply(200, b'{"tags":["latest"]}', (("Content-Type", "application/json"),))
        if kind == "blobs":
            return Reply(307, b"", (("Location", f"https://{CDN}/{reference}?signature=s1gned"),))
        data = {digest(each): each for each in IMAGES.values()}.get(reference, IMAGES[self.tag])
        return Reply(200, data, (("Content-Type", MANIFEST), ("Docker-Content-Digest", digest(data))))

    def _check(self, seen: Seen, user: str, repository: str | None) -> None:
        expected = "rest" if repository is None else owner(repository, self.patterns)
        if user not in (NOBODY, expected):
            self.wrong.append(f"{user} where {expected} is meant: {seen.method} {seen.url}")
