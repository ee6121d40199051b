"""The policy server: the question, its answers, and what becomes of its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dockmirror.admission.admit import HookVerdict
from dockmirror.admission.hook import DEFAULT_VALID, MAX_VALID, parse_verdict
from dockmirror.config.settings import ConfigurationError
from dockmirror.oci.digest import Digest
from dockmirror.oci.errors import Denied, Unavailable
from dockmirror.oci.media import OCI_INDEX, OCI_MANIFEST
from dockmirror.oci.request import Blob

from ..fakes import DEAD, SILENT, Reply, World
from ..shelf import FOR_AMD, FOR_ARM, PLACE, described, image
from ..stacks import logged
from .verdict_gate import GatedShelf, served

HOST, PATH = "policy.example", "/verdict"
LATEST = Digest.of(served(GatedShelf().pull()))
CONFIG = json.dumps({"config": {"Labels": {"vendor": "Example"}}}).encode()
LABELLED = json.dumps(
    json.loads(image(CONFIG, b"base"))
    | {"config": described(CONFIG, "application/vnd.oci.image.config.v1+json")}
).encode()


def answer(allow: bool, **more: Any) -> Reply:
    return Reply(200, json.dumps({"allow": allow, **more}).encode())


def hooked(*replies: Reply, secret: str = "", **policy: Any) -> GatedShelf:
    """A gate whose policy server answers in turn."""
    world = World()
    world.reply(HOST, PATH, *replies)
    gate: dict[str, Any] = {"url": f"https://{HOST}{PATH}"}
    if secret:
        gate["secret_file"] = secret
    gated = GatedShelf({"hook": True} | policy, world=world, **gate)
    gated.shelf.contents[str(Blob(PLACE, Digest.of(CONFIG)))] = CONFIG
    return gated


def questions(gated: GatedShelf) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in gated.world.seen]


def test_the_question(tmp_path: Path) -> None:
    """It has everything that is known of the image, and the secret, which is never logged."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret-of-the-gate\n")
    with logged() as texts:
        gated = hooked(answer(False, reason="no"), secret=str(secret))
        gated.shelf.put(LABELLED)
        assert "library/nginx:latest is refused by the policy server: no; use another" in str(
            gated.pull().error
        )
    assert questions(gated) == [
        {
            "registry": "docker.io",
            "repository": str(PLACE),
            "tag": "latest",
            "digest": str(Digest.of(LABELLED)),
            "indexes": [],
            "media_type": OCI_MANIFEST,
            "labels": {"vendor": "Example"},
            "size": len(CONFIG) + len(b"base"),
            "requester": {"address": "192.0.2.1", "user": "alice"},
        }
    ]
    (seen,) = gated.world.seen
    assert (seen.method, seen.authorization) == ("POST", "Bearer s3cret-of-the-gate")
    assert not any("s3cret" in text for text in texts)


def test_an_index_has_neither_labels_nor_a_size() -> None:
    gated = hooked(answer(True))
    assert Digest.of(served(gated.pull())) == LATEST
    (question,) = questions(gated)
    assert (question["media_type"], question["labels"], question["size"]) == (OCI_INDEX, {}, None)


@pytest.mark.parametrize("allow", [True, False])
def test_a_verdict_is_kept_for_its_time(allow: bool) -> None:
    gated = hooked(answer(allow, valid_for=60), answer(not allow, valid_for=60))
    for seconds, is_served in ((0, allow), (49, allow), (12, not allow)):
        gated.clock.advance(seconds)
        outcome = gated.pull()
        assert served(outcome) if is_served else isinstance(outcome.error, Denied)
    assert len(gated.world.seen) == 2


def test_the_manifest_is_not_read_again_for_a_kept_verdict() -> None:
    gated = hooked(answer(True, valid_for=60))
    for requests in (["HEAD", "GET"], ["HEAD"]):
        assert gated.pull(head=True).get().status == 200
        assert [each.partition(" ")[0] for each in gated.reads()] == requests
        gated.clock.advance(10)


def test_an_image_of_an_index_is_asked_about_with_the_index() -> None:
    gated = hooked(answer(True))
    served(gated.pull())
    gated.restart()
    assert served(gated.pull(Digest.of(FOR_AMD))) == FOR_AMD
    assert gated.pull(Digest.of(FOR_ARM), head=True).get().status == 200
    asked = [(each["tag"], each["digest"], each["indexes"]) for each in questions(gated)]
    assert asked == [
        ("latest", str(LATEST), []),
        (None, str(Digest.of(FOR_AMD)), [str(LATEST)]),
        (None, str(Digest.of(FOR_ARM)), [str(LATEST)]),
    ]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(500), "the policy server answered 500"),
        (Reply(302, b"", (("Location", f"https://{HOST}/other"),)), "the policy server answered 302"),
        (Reply(401), "the policy server answered 401"),
        (Reply(200, b"<html>"), "the policy server's answer is no verdict"),
        (Reply(200, b'{"result":true}'), "the policy server's answer is no verdict"),
        (Reply(200, b" " * 2_000_000), "answer is larger than 1048576 bytes"),
        (DEAD, "the policy server does not answer: "),
        (SILENT, "the policy server did not answer within 2 s"),
    ],
)
def test_faults(reply: Reply, problem: str) -> None:
    """An image that cannot be checked is refused, and asked about again; with ``on_error`` it is served."""
    gated = hooked(reply, answer(True))
    refused = gated.pull()
    gated.clock.advance(2)
    assert isinstance(refused.error, Denied)
    assert problem in str(refused.error)
    gated.clock.advance(60)
    assert served(gated.pull())
    tolerant = hooked(reply, on_error="serve")
    outcome = tolerant.pull()
    tolerant.clock.advance(2)
    assert served(outcome)


def test_a_dry_run_serves_and_counts() -> None:
    gated = hooked(answer(False, reason="too many flaws"), mode="warn")
    (warning,) = gated.pull().get().headers
    assert "too many flaws" in warning[1]
    assert gated.counted == [("hook", "would_refuse")]


def test_a_policy_without_the_hook_asks_nobody() -> None:
    """The first policy that matches and sets it holds."""
    world = World()
    policies: list[dict[str, Any]] = [{"images": "docker.io/**", "hook": False}, {"hook": True}]
    gated = GatedShelf(*policies, world=world, url=f"https://{HOST}{PATH}")
    assert served(gated.pull())
    assert world.seen == []


@pytest.mark.parametrize(
    ("fields", "verdict", "seconds"),
    [
        ({"allow": True}, HookVerdict(True), DEFAULT_VALID),
        ({"allow": False, "reason": 'a\r\nSet-Cookie: "x"\\', "valid_for": 5.5},
         HookVerdict(False, "a Set-Cookie: 'x'/"), 5.5),
        ({"allow": False, "reason": "naïve" + "x" * 1000, "valid_for": -1},
         HookVerdict(False, "na?ve" + "x" * 295), 0.0),
        ({"allow": True, "valid_for": 1e99}, HookVerdict(True), MAX_VALID),
        ({"allow": True, "valid_for": float("nan")}, HookVerdict(True), 0.0),
        ({"allow": True, "reason": None}, HookVerdict(True), DEFAULT_VALID),
    ],
)  # fmt: skip
def test_verdicts(fields: dict[str, Any], verdict: HookVerdict, seconds: float) -> None:
    assert parse_verdict(json.dumps(fields).encode()) == (verdict, seconds)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"allow":"yes"}', b'{"allow":1}', b'{"allow":true,"valid_for":"h"}', b"[" * 99999],
)
def test_answers_that_are_no_verdict(data: bytes) -> None:
    with pytest.raises(Unavailable, match="is no verdict"):
        parse_verdict(data)


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ({}, "gate.url: is missing: a policy has 'hook = true'"),
        ({"url": "ftp://x"}, "gate.url: expected an address such as https://policy.example.com/verdict"),
        ({"url": "https://user@x/"}, "gate.url: expected an address without a username"),
        ({"url": "https://x/", "timeout": "4s"}, "gate.timeout: expected a duration of at most 3s"),
        ({"url": "https://x/", "secret_file": "/dev/null"}, "gate.secret_file: /dev/null is not a file"),
    ],
)
def test_settings_that_are_invalid(gate: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GatedShelf({"hook": True}, **gate)
    assert problem in str(caught.value)


def test_an_empty_secret_is_an_error(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"gate\.secret_file: expected a line of text in"):
        GatedShelf({"hook": True}, url="https://x/", secret_file=str(secret))
