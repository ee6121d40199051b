"""A registry, its token service and its content delivery network, as servers of a world."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Protocol

from dockmirror.oci.media import OCI_INDEX

from .fakes import Pairs, Reply, Seen

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_RESOURCE = re.compile(r"/v2/(.+)/(manifests|blobs|tags|referrers)/([^/]+)")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def basic(name: str, password: str) -> str:
    """``Authorization`` with a name and a password."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def error(status: int, code: str, message: str = "no", *headers: tuple[str, str]) -> Reply:
    """A refusal in the specification's format."""
    body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
    return Reply(status, body, (("Content-Type", "application/json"), *headers))


def ranged(seen: Seen, data: bytes, headers: Pairs = ()) -> Reply:
    """The data, or the part of it that was asked for."""
    match = _RANGE.fullmatch(seen.header("Range") or "")
    if match is None:
        return Reply(200, data, headers)
    size = len(data)
    first = int(match[1]) if match[1] else max(0, size - int(match[2]))
    last = min(size, int(match[2]) + 1) if match[1] and match[2] else size
    if first >= last:
        return Reply(416, b"", (("Content-Range", f"bytes */{size}"),))
    return Reply(206, data[first:last], (*headers, ("Content-Range", f"bytes {first}-{last - 1}/{size}")))


class Door(Protocol):
    """A registry's authentication."""

    def admits(self, seen: Seen, repository: str | None) -> bool:
        """Return whether the request may have the repository; None for ``/v2/``."""

    def challenge(self, repository: str | None) -> str:
        """Return the ``WWW-Authenticate`` field."""


class Open:
    """No authentication."""

    def admits(self, seen: Seen, repository: str | None) -> bool:
        return True

    def challenge(self, repository: str | None) -> str:
        raise NotImplementedError


class Passwords:
    """Basic authentication."""

    def __init__(self, users: dict[str, str]) -> None:
        self._accepted = {basic(name, password) for name, password in users.items()}

    def admits(self, seen: Seen, repository: str | None) -> bool:
        return seen.authorization in self._accepted

    def challenge(self, repository: str | None) -> str:
        return 'Basic realm="Registry Realm"'


class Tokens:
    """A token service: everybody is given tokens for what is public, users for the rest, too.

    A GET is answered with ``token`` alone, a form with ``access_token`` alone, as some services do.
    """

    def __init__(
        self, realm: str, service: str, users: dict[str, str] | None = None, private: Iterable[str] = ()
    ) -> None:
        self.realm = realm
        self.service = service
        self.private = set(private)
        self.life = 300
        self._users = {basic(*user) for user in (users or {}).items()}
        self._allowed: dict[str, set[str]] = {}

    def __call__(self, seen: Seen) -> Reply:
        user = seen.authorization or _form_user(seen)
        if user is not None and user not in self._users:
            return error(401, "UNAUTHORIZED", "incorrect username or password")
        token = f"t0ken-{len(self._allowed)}-{'user' if user else 'anonymous'}"
        scopes = [
            text for key, value in (*seen.query, *seen.form) if key == "scope" for text in value.split()
        ]
        names = {scope.split(":")[1] for scope in scopes if scope.startswith("repository:")}
        self._allowed[token] = names if user else names - self.private
        given = {"access_token" if seen.method == "POST" else "token": token, "expires_in": self.life}
        return Reply(200, json.dumps(given).encode(), (("Content-Type", "application/json"),))

    def admits(self, seen: Seen, repository: str | None) -> bool:
        """With a token for that repository; to ``/v2/`` with any."""
        allowed = self._allowed.get((seen.authorization or "").removeprefix("Bearer "))
        return allowed is not None and (repository is None or repository in allowed)

    def challenge(self, repository: str | None) -> str:
        scope = f',scope="repository:{repository}:pull"' if repository else ""
        service = f',service="{self.service}"' if self.service else ""
        return f'Bearer realm="{self.realm}"{service}{scope}'

    def revoke(self) -> None:
        """No token is of use any more."""
        self._allowed = {token: set() for token in self._allowed}


def _form_user(seen: Seen) -> str | None:
    form = dict(seen.form)
    return basic(form["username"], form["password"]) if "password" in form else None


class Registry:
    """Gives what was pushed to it.

    :param blobs_at: where it redirects to for blobs; it sends them itself without.
    """

    def __init__(self, door: Door | None = None, blobs_at: str | None = None) -> None:
        self.door = door or Open()
        self.blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], bytes] = {}
        self._blobs_at = blobs_at

    def push(self, repository: str, tag: str, manifest: bytes = b'{"schemaVersion":2}') -> str:
        """A manifest by tag and by digest; returns the digest."""
        self._manifests[repository, tag] = self._manifests[repository, digest(manifest)] = manifest
        return digest(manifest)

    def add(self, repository: str, blob: bytes) -> str:
        """A blob; returns its path."""
        self.blobs[digest(blob)] = blob
        return f"/v2/{repository}/blobs/{digest(blob)}"

    def __call__(self, seen: Seen) -> Reply:
        match = _RESOURCE.fullmatch(seen.path)
        repository = match[1] if match else None
        if not self.door.admits(seen, repository):
            challenge = ("WWW-Authenticate", self.door.challenge(repository))
            return error(401, "UNAUTHORIZED", "authentication required", challenge)
        if match is None:
            return Reply(200, b"{}", (("Content-Type", "application/json"),))
        return {"manifests": self._manifest, "blobs": self._blob}.get(match[2], self._list)(
            seen, *match.groups()
        )

    def _manifest(self, seen: Seen, repository: str, _: str, reference: str) -> Reply:
        manifest = self._manifests.get((repository, reference))
        if manifest is None:
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        kind = OCI_INDEX if b'"manifests"' in manifest else MANIFEST
        told = (("Content-Type", kind), ("Docker-Content-Digest", digest(manifest)))
        return Reply(200, manifest, told)

    def _blob(self, seen: Seen, repository: str, _: str, reference: str) -> Reply:
        if reference not in self.blobs:
            return error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self._blobs_at is not None:
            return Reply(307, b"see there", (("Location", f"{self._blobs_at}/{reference}?signature=s1gned"),))
        return ranged(seen, self.blobs[reference])

    def _list(self, seen: Seen, repository: str, endpoint: str, _: str) -> Reply:
        tags = sorted(tag for name, tag in self._manifests if name == repository and ":" not in tag)
        body = {"name": repository, endpoint: tags}
        return Reply(200, json.dumps(body).encode(), (("Content-Type", "application/json"),))


class Cdn:
    """Sends the blobs of a registry to who has a signed address, and to nobody with credentials."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __call__(self, seen: Seen) -> Reply:
        """Answers, in the manner of an object store."""
        if seen.authorization or seen.header("Cookie"):
            return Reply(400, b"<Error>InvalidArgument</Error>", (("Content-Type", "application/xml"),))
        if ("signature", "s1gned") not in seen.query:
            return Reply(403, b"<Error>AccessDenied</Error>", (("Content-Type", "application/xml"),))
        blob = self._registry.blobs[seen.path.rpartition("/")[2]]
        return ranged(seen, blob, (("Content-Type", "binary/octet-stream"), ("ETag", '"etag-of-the-store"')))
