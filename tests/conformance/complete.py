"""A registry that has all that the specification leaves to registries, in memory."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.integration.parts.media import OCI, Content, sha256
from tests.integration.parts.server import Exchange, Server

_PATH = re.compile(
    r"/v2/(?P<name>[^?]+)/(?P<kind>blobs/uploads|blobs|manifests|tags|referrers)/(?P<what>[^/]*)"
)
_CONTENT_RANGE = re.compile(r"(\d+)-(\d+)")
SHORTEST = 1000
"""So many bytes at least each chunk but the last is asked to have."""


class Refusal(Exception):
    """An error of the specification."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        self.status, self.code, self.headers = status, code, headers


@dataclass
class Repository:
    """The contents pushed under one name."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, Content] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)

    def manifest(self, reference: str) -> Content:
        """The manifest of a tag or digest."""
        found = self.manifests.get(self.tags.get(reference, reference))
        if found is None:
            raise Refusal(404, "MANIFEST_UNKNOWN")
        return found

    def referrers(self, digest: str, kind: str | None) -> list[dict[str, Any]]:
        """The descriptors of those whose subject has that digest, of that type if one is asked for."""
        described = [_described(each) for each in self.manifests.values() if _subject(each.data) == digest]
        return [each for each in described if kind in (None, each.get("artifactType"))]


class Complete(Server):
    """A registry open to everybody; locations of uploads are relative, and their state must come back."""

    def __init__(self) -> None:
        class Asked(_Asked):
            registry = self

        super().__init__("127.0.0.1", Asked)
        self.repositories: dict[str, Repository] = {}
        self.appending = threading.Lock()


class _Asked(Exchange):
    registry: Complete

    def do_GET(self) -> None:
        try:
            self._answer()
        except Refusal as refusal:
            body = json.dumps({"errors": [{"code": refusal.code, "message": "", "detail": None}]}).encode()
            self.answer(refusal.status, body, Content_Type="application/json", **refusal.headers)

    do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        if url.path == "/v2/":
            self.answer(200, b"{}", Content_Type="application/json")
            return
        match = _PATH.fullmatch(url.path)
        if match is None:
            raise Refusal(404, "NAME_INVALID")
        self.name = match["name"]
        methods: dict[str, Callable[[str, bytes], None]] = {
            "blobs/uploads": self._upload,
            "blobs": self._blob,
            "manifests": self._manifest,
            "tags": self._tags,
            "referrers": self._referrers,
        }
        if self.name not in self.registry.repositories:
            if match["kind"] == "tags":
                raise Refusal(404, "NAME_UNKNOWN")
            self.registry.repositories[self.name] = Repository()
        self.repository = self.registry.repositories[self.name]
        methods[match["kind"]](match["what"], body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self._as_far_as_it_came(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _as_far_as_it_came(self, size: int) -> bytes:
        """A client may be cut off, and go on later."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while len(received) < size and (piece := self.rfile.read1(size - len(received))):
                received += piece
        return received

    def _blob(self, digest: str, _: bytes) -> None:
        if digest not in self.repository.blobs:
            raise Refusal(404, "BLOB_UNKNOWN")
        if self.command == "DELETE":
            del self.repository.blobs[digest]
            self.answer(202)
            return
        data = self.repository.blobs[digest]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        told = {"Docker_Content_Digest": digest, "Content_Type": "application/octet-stream"}
        if asked is None:
            self.answer(200, data, **told)
            return
        part = data[int(asked[1]) : int(asked[2]) + 1 if asked[2] else None]
        if not part:
            raise Refusal(416, "RANGE_INVALID", Content_Range=f"bytes */{len(data)}")
        last = int(asked[1]) + len(part) - 1
        self.answer(206, part, **told, Content_Range=f"bytes {asked[1]}-{last}/{len(data)}")

    def _upload(self, what: str, body: bytes) -> None:
        if self.command == "POST":
            self._begin(body)
            return
        upload = self.repository.uploads.get(what)
        if upload is None:
            raise Refusal(404, "BLOB_UPLOAD_UNKNOWN")
        if self.query.get("state") != f"of {what}":
            raise Refusal(400, "BLOB_UPLOAD_INVALID")
        if self.command == "DELETE":
            del self.repository.uploads[what]
            self.answer(204)
        elif self.command == "GET":
            self.answer(204, b"", **self._progress(what))
        else:
            self._take(what, body)
            if self.command == "PUT":
                self._commit(bytes(self.repository.uploads.pop(what)))
            else:
                self.answer(202, b"", **self._progress(what))

    def _begin(self, body: bytes) -> None:
        mounted = self.query.get("mount", "")
        source = self.registry.repositories.get(self.query.get("from", ""))
        if source is not None and mounted in source.blobs:
            self._commit(source.blobs[mounted], mounted)
        elif "digest" in self.query:
            self._commit(body)
        else:
            what = f"upload-{len(self.repository.uploads)}"
            self.repository.uploads[what] = bytearray()
            self.answer(202, b"", **self._progress(what), OCI_Chunk_Min_Length=str(SHORTEST))

    def _take(self, what: str, body: bytes) -> None:
        """Appends a chunk, or as much of it as came, if it begins where the upload ends."""
        announced = int(self.headers.get("Content-Length", len(body)))
        told = self.headers.get("Content-Range")
        with self.registry.appending:
            upload = self.repository.uploads[what]
            if told is not None:
                match = _CONTENT_RANGE.fullmatch(told)
                if (
                    match is None
                    or int(match[1]) != len(upload)
                    or int(match[2]) + 1 - int(match[1]) != announced
                ):
                    raise Refusal(416, "RANGE_INVALID", **self._progress(what))
            upload += body

    def _commit(self, data: bytes, digest: str = "") -> None:
        digest = digest or self.query.get("digest", "")
        if sha256(data) != digest:
            raise Refusal(400, "DIGEST_INVALID")
        self.repository.blobs[digest] = data
        self.answer(201, Location=f"/v2/{self.name}/blobs/{digest}", Docker_Content_Digest=digest)

    def _progress(self, what: str) -> dict[str, str]:
        size = len(self.repository.uploads[what])
        return {
            "Location": f"/v2/{self.name}/blobs/uploads/{what}?{urlencode({'state': f'of {what}'})}",
            "Range": f"0-{max(size - 1, 0)}",
            "Docker_Upload_UUID": what,
        }

    def _manifest(self, reference: str, body: bytes) -> None:
        if self.command == "PUT":
            self._put(reference, body)
            return
        found = self.repository.manifest(reference)
        if self.command != "DELETE":
            self.answer(200, found.data, Content_Type=found.media_type, Docker_Content_Digest=found.digest)
            return
        tags = self.repository.tags
        if reference in tags:
            del tags[reference]
        else:
            del self.repository.manifests[reference]
            self.repository.tags = {tag: digest for tag, digest in tags.items() if digest != reference}
        self.answer(202)

    def _put(self, reference: str, body: bytes) -> None:
        try:
            document = json.loads(body)
        except ValueError as error:
            raise Refusal(400, "MANIFEST_INVALID") from error
        content = Content(self.headers["Content-Type"], body)
        if ":" in reference and reference != content.digest:
            raise Refusal(400, "DIGEST_INVALID")
        blobs = [each["digest"] for each in [*document.get("layers", ()), document.get("config")] if each]
        if any(each not in self.repository.blobs for each in blobs):
            raise Refusal(404, "MANIFEST_BLOB_UNKNOWN")
        self.repository.manifests[content.digest] = content
        if ":" not in reference:
            self.repository.tags[reference] = content.digest
        location = f"/v2/{self.name}/manifests/{reference}"
        subject = _subject(body)
        more = {"OCI_Subject": subject} if subject else {}
        self.answer(201, b"", Location=location, Docker_Content_Digest=content.digest, **more)

    def _tags(self, _: str, __: bytes) -> None:
        tags = [tag for tag in sorted(self.repository.tags) if tag > self.query.get("last", "")]
        count = int(self.query.get("n", len(tags)))
        more = {}
        if tags[count:] and count:
            query = urlencode({"n": count, "last": tags[count - 1]})
            more = {"Link": f'</v2/{self.name}/tags/list?{query}>; rel="next"'}
        body = json.dumps({"name": self.name, "tags": tags[:count]}).encode()
        self.answer(200, body, Content_Type="application/json", **more)

    def _referrers(self, digest: str, _: bytes) -> None:
        kind = self.query.get("artifactType")
        found = self.repository.referrers(digest, kind)
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI.index, "manifests": found}).encode()
        more = {"OCI_Filters_Applied": "artifactType"} if kind else {}
        self.answer(200, body, Content_Type=OCI.index, **more)


def _subject(manifest: bytes) -> str | None:
    digest: str | None = json.loads(manifest).get("subject", {}).get("digest")
    return digest


def _described(content: Content) -> dict[str, Any]:
    document = json.loads(content.data)
    kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
    more = {"annotations": document["annotations"]} if "annotations" in document else {}
    return content.descriptor(artifactType=kind, **more)
