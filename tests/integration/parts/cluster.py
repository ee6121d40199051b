"""A Kubernetes API server, as far as helm installs and uninstalls a chart by it.

It keeps objects and tells watchers of changes.  It validates nothing: the schemas do.  helm sends the Secrets
with its releases in protobuf, and gets them back as it sent them.
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml  # type: ignore[import-not-found, import-untyped, unused-ignore]

from .authority import Authority
from .helm import Object
from .server import Exchange, Server

_RESOURCES = {
    "v1": {"configmaps": "ConfigMap", "services": "Service", "serviceaccounts": "ServiceAccount"},
    "apps/v1": {"statefulsets": "StatefulSet", "daemonsets": "DaemonSet"},
    "batch/v1": {"jobs": "Job"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
}  # fmt: skip
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
Started = Callable[[Object], None]


class Cluster(Server):
    """The server, by TLS.

    :ivar events: creations and deletions in their order, such as ("POST", "DaemonSet", "name").
    :ivar run: called with each new workload, in a thread.
    """

    def __init__(self, authority: Authority, run: Started) -> None:
        super().__init__("127.0.0.1", _Request, authority.issue("127.0.0.1"))
        self.events: list[tuple[str, str, str]] = []
        self.run = run
        self._authority = authority.certificate
        self.secrets: dict[str, bytes] = {}
        self._objects: dict[str, Object] = {}
        self._versions = 0
        self._changed = threading.Condition()

    def kubeconfig(self) -> str:
        """The file by which clients reach the server."""
        place = {"server": f"https://{self.host}:{self.port}", "certificate-authority": str(self._authority)}
        cluster = {"name": "c", "cluster": place}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        return json.dumps(
            {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
             "current-context": "c", "users": [{"name": "u", "user": {}}]}
        )  # fmt: skip

    def get(self, path: str) -> Object | None:
        """Return an object."""
        return self._objects.get(path)

    def list(self, path: str, name: str | None = None) -> list[Object]:
        """Return the objects of a collection."""
        found = (
            (key.removeprefix(f"{path}/"), each)
            for key, each in list(self._objects.items())
            if key.startswith(f"{path}/")
        )
        return [each for key, each in found if name in (None, key)]

    def put(self, path: str, given: Mapping[str, Any]) -> Object:
        """Keep an object; what it already had and is not given stays."""
        with self._changed:
            self._versions += 1
            before = self._objects.get(path)
            kept = {**(before or {}), **given}
            meta = {"uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}
            kept["metadata"] = {
                **meta,
                **(before or {}).get("metadata", {}),
                **given["metadata"],
                "resourceVersion": str(self._versions),
            }
            self._objects[path] = kept
            if before is None:
                self.events.append(("POST", kept["kind"], kept["metadata"]["name"]))
            self._changed.notify_all()
        if before is None and "template" in kept.get("spec", {}):
            threading.Thread(target=self.run, args=(kept,), daemon=True).start()
        return kept

    def set_status(self, kind: str, name: str, status: Object) -> None:
        """Report the status of a workload."""
        [(path, found)] = [
            (path, each)
            for path, each in list(self._objects.items())
            if each["kind"] == kind and each["metadata"]["name"] == name
        ]
        self.put(path, {**found, "status": status})

    def delete(self, path: str) -> Object | None:
        """Forget an object."""
        with self._changed:
            found = self._objects.pop(path, None)
            if found is not None:
                self.events.append(("DELETE", found["kind"], found["metadata"]["name"]))
            self._changed.notify_all()
        return found

    def wait_for_change(self) -> None:
        """Wait until any object has changed, or for a moment."""
        with self._changed:
            self._changed.wait(0.2)


class _Request(Exchange):
    def do_GET(self) -> None:
        if self._is_secret:
            self._give_secrets()
            return
        split = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(split.query).items()}
        path, cluster = split.path, self._cluster
        if (described := _describe(path)) is not None:
            self._json(described)
        elif path.rpartition("/")[2] in {name for each in _RESOURCES.values() for name in each}:
            name = query.get("fieldSelector", "").removeprefix("metadata.name=") or None
            if query.get("watch") in ("true", "1"):
                with contextlib.suppress(OSError):  # the client has what it waited for
                    self._watch(path, name, query.get("sendInitialEvents") == "true")
            else:
                self._json(
                    {
                        "kind": "List",
                        "apiVersion": "v1",
                        "metadata": {"resourceVersion": "1"},
                        "items": self._selected(path, name, query),
                    }
                )
        elif (found := cluster.get(path)) is not None:
            self._json(found)
        else:
            self._missing()

    def do_POST(self) -> None:
        if self._is_secret:
            self._keep_secret()
            return
        given = self._given()
        self._json(self._cluster.put(f"{urlsplit(self.path).path}/{given['metadata']['name']}", given), 201)

    def do_PUT(self) -> None:
        if self._is_secret:
            self._keep_secret()
            return
        self._json(self._cluster.put(urlsplit(self.path).path, self._given()))

    do_PATCH = do_PUT  # an applied configuration, or a merge: complete objects in what helm does here

    def do_DELETE(self) -> None:
        self.body()
        if self._is_secret:
            self._secrets.pop(urlsplit(self.path).path.rpartition("/")[2])
            self._json({"kind": "Status", "apiVersion": "v1", "status": "Success"})
            return
        found = self._cluster.delete(urlsplit(self.path).path)
        if found is None:
            self._missing()
        else:
            self._json(found)

    @property
    def _is_secret(self) -> bool:
        return "/secrets" in urlsplit(self.path).path

    @property
    def _secrets(self) -> dict[str, bytes]:
        return self._cluster.secrets

    def _keep_secret(self) -> None:
        secret = _fields(self.body().removeprefix(_MAGIC))[2][0]
        self._secrets[_name(secret)] = secret
        self._protobuf("Secret", secret)

    def _give_secrets(self) -> None:
        split = urlsplit(self.path)
        if not split.path.endswith("/secrets"):
            secret = self._secrets.get(split.path.rpartition("/")[2])
            if secret is None:
                self._missing()
            else:
                self._protobuf("Secret", secret)
            return
        selector = parse_qs(split.query).get("labelSelector", [""])[0]
        wanted = dict(each.split("=") for each in selector.split(",") if each)
        found = [each for each in self._secrets.values() if wanted.items() <= _labels(each).items()]
        self._protobuf("SecretList", b"".join(_field(2, each) for each in found))

    def _protobuf(self, kind: str, value: bytes) -> None:
        wrapped = _field(1, _field(1, b"v1") + _field(2, kind.encode())) + _field(2, value)
        self.answer(200, _MAGIC + wrapped, Content_Type="application/vnd.kubernetes.protobuf")

    @property
    def _cluster(self) -> Cluster:
        assert isinstance(self.server.owner, Cluster)
        return self.server.owner

    def _given(self) -> Object:
        given: Object = yaml.safe_load(self.body())
        return given

    def _selected(self, path: str, name: str | None, query: Mapping[str, str]) -> list[Object]:
        wanted = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each)
        return [
            each for each in self._cluster.list(path, name)
            if wanted.items() <= each["metadata"].get("labels", {}).items()
        ]  # fmt: skip

    def _watch(self, path: str, name: str | None, marks_end: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        told: dict[str, Object] = {}
        while True:
            present = {each["metadata"]["name"]: each for each in self._cluster.list(path, name)}
            for key in {*told, *present}:
                if key not in present:
                    self._event("DELETED", told.pop(key))
                elif told.get(key) != present[key]:
                    self._event("MODIFIED" if key in told else "ADDED", present[key])
                    told[key] = present[key]
            if marks_end:
                self._event("BOOKMARK", self._end_of_initial_events(path))
                marks_end = False
            self._cluster.wait_for_change()

    def _end_of_initial_events(self, path: str) -> Object:
        version = path.removeprefix("/apis/").removeprefix("/api/").partition("/namespaces/")[0]
        annotations = {"k8s.io/initial-events-end": "true"}
        return {
            "apiVersion": version, "kind": _RESOURCES[version][path.rpartition("/")[2]],
            "metadata": {"resourceVersion": "1", "annotations": annotations},
        }  # fmt: skip

    def _event(self, kind: str, of: Object) -> None:
        self.wfile.write(json.dumps({"type": kind, "object": of}).encode() + b"\n")
        self.wfile.flush()

    def _json(self, value: Object, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self) -> None:
        self._json(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
                "message": "not found",
            },
            404,
        )


_MAGIC = b"k8s\x00"
"""The beginning of every message in protobuf."""


def _fields(message: bytes) -> dict[int, list[bytes]]:
    """Return the fields of a message that have a length, by their numbers."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            found.setdefault(key >> 3, []).append(message[at : at + value])
            at += value
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _field(number: int, value: bytes) -> bytes:
    """Return a field with a length."""
    size, rest = b"", len(value)
    while rest > 0x7F:
        size, rest = size + bytes([rest & 0x7F | 0x80]), rest >> 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + value


def _name(secret: bytes) -> str:
    return _fields(_fields(secret)[1][0])[1][0].decode()


def _labels(secret: bytes) -> dict[str, str]:
    pairs = (_fields(each) for each in _fields(_fields(secret)[1][0]).get(11, []))
    return {pair[1][0].decode(): pair[2][0].decode() for pair in pairs}


def _describe(path: str) -> Object | None:
    """Return what clients ask an API server about itself."""
    groups = [each.split("/") for each in _RESOURCES if "/" in each]
    if path == "/version":
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = [
            {"name": group, "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
             "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version}}
            for group, version in groups
        ]  # fmt: skip
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    if path == "/openapi/v3":
        places = (f"api/{version}" if version == "v1" else f"apis/{version}" for version in _RESOURCES)
        return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}"} for place in places}}
    if path.startswith("/openapi/v3/"):
        return _openapi(path.removeprefix("/openapi/v3/").removeprefix("apis/").removeprefix("api/"))
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in _RESOURCES and path.startswith("/api"):
        resources = [
            {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": _VERBS}
            for name, kind in _RESOURCES[version].items()
        ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": resources,
        }
    return None


def _openapi(version: str) -> Object:
    """Return a description that makes clients leave the validation of objects to the server."""
    group, _, number = version.rpartition("/")
    parameters = [{"name": "fieldValidation", "in": "query"}]
    paths = {
        f"/{name}/{{name}}": {
            "patch": {
                "parameters": parameters,
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
            }
        }
        for name, kind in _RESOURCES[version].items()
    }
    return {"openapi": "3.0.0", "info": {"title": "cluster", "version": "1"}, "paths": paths}
