"""Clients without a right to use the mirror, by every route, with every forged header."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import bcrypt
import jwt
import pytest

from tests.integration.conftest import MakeDirectory, MakeMachine
from tests.integration.parts.accounts import Account
from tests.integration.parts.images import Image, artifact
from tests.integration.parts.mirror import DOMAIN, Mirror

from .rows import Record, hardship
from .witness import Witness

pytestmark = pytest.mark.integration

INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.9"
CAROL = Account("carol", "car0l's own")
NONE = f"sha256:{'0' * 64}"
ROUTES = (
    "/", "/v2/", "/v2", "/v2/_catalog", "/v2/auth", "/v2/library/a/manifests/latest",
    f"/v2/library/a/blobs/{NONE}", "/v2/library/a/tags/list", f"/v2/library/a/referrers/{NONE}",
    "/v2/docker.io/library/a/manifests/latest", "/docker.io/v2/library/a/manifests/latest",
    "/docker.io/v2/auth", "/v2/library/a/manifests/latest?ns=docker.io", "/export?image=a", "/status",
    "/page.css", "/nothing", "/v2/library/a/blobs/uploads/", "/metrics", "/readyz", "//v2/", "/%76%32/",
    "/v2/%61uth",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
FORGED: dict[str, Mapping[str, str]] = {
    "nothing": {},
    "X-Forwarded-For": {"X-Forwarded-For": INSIDE},
    "two hops": {"X-Forwarded-For": f"{OUTSIDE}, {INSIDE}"},
    "an empty one": {"X-Forwarded-For": ""},
    "Forwarded": {"Forwarded": f"for={INSIDE}"},
    "X-Real-IP": {"X-Real-IP": INSIDE},
    "all": {"X-Forwarded-For": INSIDE, "X-Real-IP": INSIDE, "X-Forwarded-Host": DOMAIN},
    "Cloudflare": {"CF-Connecting-IP": INSIDE},
    "True-Client-IP": {"True-Client-IP": INSIDE},
    "others": {"X-Client-IP": INSIDE, "X-Cluster-Client-IP": INSIDE, "Client-IP": INSIDE, "Via": "1.1 proxy"},
    "mapped": {"X-Forwarded-For": f"::ffff:{INSIDE}"},
    "a host of its own": {"X-Forwarded-Host": "localhost"},
}  # fmt: skip
FOREIGN = (
    "evil.test", f"{DOMAIN}.evil.test", f"docker.{DOMAIN}.evil.test", f"evil-{DOMAIN}", f"evil.{DOMAIN}",
    "docker.io", "registry-1.docker.io", "127.0.0.1.evil.test", "localhost.evil.test", "2130706433",
    "0x7f.1", "[::1].evil.test", "docker",
)  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Image:
    """The only image of the upstream."""
    return artifact("of the house")


@pytest.fixture(scope="module")
def witness(image: Image) -> Iterator[Witness]:
    """The upstream."""
    with Witness(image) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def mirror(directory: MakeDirectory, make_machine: MakeMachine, witness: Witness) -> Iterator[Mirror]:
    """A mirror for one address alone, which has no proxy in front."""
    upstreams = {"docker": {"url": witness.url, "writes": True}}
    own: dict[str, Any] = {"networks": [f"{INSIDE}/32"], "export": True, "tag_ttl": 0}
    with Mirror(directory("mirror"), make_machine(), upstreams, **own) as process:
        yield process
    assert process.failures() == ""


def _asked(
    mirror: Mirror, method: str, path: str, host: str, fields: Mapping[str, str], source: str = INSIDE
) -> int:
    connection = http.client.HTTPConnection(INSIDE, mirror.port, timeout=30, source_address=(source, 0))
    with closing(connection):
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": host, **fields}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


@hardship("hostile: whoever comes from elsewhere, with forged headers")
def test_networks(mirror: Mirror, witness: Witness, came: Record) -> None:
    """A client of another network gets 403 by every route and method; only the health check answers."""
    before, wrong, count = len(witness.asked), [], 0
    for path in ROUTES:
        for number, (name, fields) in enumerate(FORGED.items()):
            for host in (mirror.host(), mirror.host("docker")):
                method = METHODS[number % len(METHODS)] if name != "nothing" else "GET"
                status = _asked(mirror, method, path, host, fields, OUTSIDE)
                count += 1
                if status != 403:
                    wrong.append(f"{method} {path} at {host} with {name}: {status}")
    assert not wrong, "\n".join(wrong)
    assert witness.asked[before:] == []
    assert _asked(mirror, "GET", "/healthz", mirror.host(), {}, OUTSIDE) == 200
    assert _asked(mirror, "GET", ROUTES[5], mirror.host("docker"), {}) in (200, 401)
    came(f"403, {count} times; /healthz: 200")


@hardship("hostile: a proxy that is not trusted")
def test_proxies(mirror: Mirror, witness: Witness, came: Record) -> None:
    """Requests sent on by an untrusted proxy are refused, though its own address is served."""
    before, count = len(witness.asked), 0
    for path in ROUTES:
        for name, fields in FORGED.items():
            if name not in ("nothing", "others"):
                assert _asked(mirror, "GET", path, mirror.host("docker"), fields) == 403, (path, name)
                count += 1
    assert witness.asked[before:] == []
    came(f"403, {count} times")


@hardship("hostile: names that are not the mirror's (DNS rebinding)")
def test_foreign_hosts(mirror: Mirror, witness: Witness, came: Record) -> None:
    """A web page whose name has come to mean the mirror's address gets nothing: 404, or 400."""
    before, count = len(witness.asked), 0
    for path in ROUTES:
        for name in FOREIGN:
            for host in (name, f"{name}:{mirror.port}"):
                assert _asked(mirror, "GET", path, host, {"Origin": f"http://{host}"}) in (400, 404), (
                    path,
                    host,
                )
                count += 1
    assert witness.asked[before:] == []
    came(f"404 or 400, {count} times")


@pytest.fixture(scope="module")
def secrets(directory: MakeDirectory) -> Path:
    """A directory with the user Carol and the mirror's keys."""
    at = directory("members")
    hashed = bcrypt.hashpw(CAROL.password.encode(), bcrypt.gensalt(5)).decode()
    (at / "htpasswd").write_text(f"{CAROL.name}:{hashed}\n")
    return at


@pytest.fixture(scope="module")
def members(
    directory: MakeDirectory, make_machine: MakeMachine, witness: Witness, secrets: Path
) -> Iterator[Mirror]:
    """A mirror for Carol."""
    access = {"htpasswd": str(secrets / "htpasswd"), "keys": str(secrets / "keys")}
    own: dict[str, Any] = {"access": access, "export": True, "tag_ttl": 0}
    with Mirror(directory("mirror"), make_machine(), {"docker": {"url": witness.url}}, **own) as process:
        yield process
    assert process.failures() == ""


def _by_sha512(claims: dict[str, Any], key: bytes) -> str:
    """Sign claims with the right key by HS512, for which PyJWT finds it too short."""
    parts = [{"alg": "HS512", "typ": "dockmirror-access"}, claims]
    signed = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.digest(key, signed, "sha512")).rstrip(b"=")
    return f"{signed.decode()}.{signature.decode()}"


def _forged(keys: Path) -> dict[str, str]:
    now, typ = int(time.time()), {"typ": "dockmirror-access"}
    key, other = bytes.fromhex(keys.read_text().split()[0]), b"another key, of 32 bytes or more."
    claims: dict[str, Any] = {"sub": "carol", "iat": now, "exp": now + 300}
    made = {
        "of another key": jwt.encode(claims, other, "HS256", typ),
        "of the key as it is written": jwt.encode(claims, keys.read_text().strip(), "HS256", typ),
        "of no key": jwt.encode(claims, "", "none", typ),
        "of another algorithm": _by_sha512(claims, key),
        "that has ended": jwt.encode({**claims, "exp": now - 1}, key, "HS256", typ),
        "that never ends": jwt.encode({"sub": "carol"}, key, "HS256", typ),
        "of nobody": jwt.encode({"exp": now + 300}, key, "HS256", typ),
        "of another type": jwt.encode(claims, key, "HS256", {"typ": "JWT"}),
        "that begins in an hour": jwt.encode({**claims, "nbf": now + 3600}, key, "HS256", typ),
        "that stands for none": "anonymous",
    }
    right = jwt.encode(claims, key, "HS256", typ)
    head, body, signature = right.split(".")
    made["without its signature"] = f"{head}.{body}."
    made["with another's claims"] = (
        f"{head}.{jwt.encode({**claims, 'sub': 'root'}, other).split('.')[1]}.{signature}"
    )
    return {f"token {name}": f"Bearer {token}" for name, token in made.items()} | {
        "her password, wrong": Account(CAROL.name, "wrong").basic,
        "her password, of another": Account("dave", CAROL.password).basic,
        "her password, cut": Account(CAROL.name, CAROL.password[:-1]).basic,
        "no password": Account(CAROL.name, "").basic,
        "a scheme of its own": f"Token {right}",
        "nothing": "",
    }


@hardship("hostile: forged and ended tokens of the mirror's own")
def test_members(members: Mirror, secrets: Path, witness: Witness, came: Record) -> None:
    """Forged credentials get 401, 400 or 429 by every route, and Carol is still served."""
    carol = {"Authorization": CAROL.basic}
    assert _asked(members, "GET", ROUTES[5], members.host("docker"), carol) == 200
    forged, before, wrong, count = _forged(secrets / "keys"), len(witness.asked), [], 0
    for path in ROUTES:
        for name, authorization in forged.items():
            for host in (members.host(), members.host("docker")):
                fields = {"Authorization": authorization} if authorization else {}
                status = _asked(members, "GET", path, host, fields)
                count += 1
                if status not in (400, 401, 429 if "password" in name else 401):
                    wrong.append(f"{path} at {host} with {name}: {status}")
    assert not wrong, "\n".join(wrong)
    assert witness.asked[before:] == []
    assert _asked(members, "GET", ROUTES[5], members.host("docker"), carol) == 200
    came(f"401, 400 or 429, {count} times")
