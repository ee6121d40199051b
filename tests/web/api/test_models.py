"""The API answers as its OpenAPI document says, whatever is sent to it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from requests import PreparedRequest, Request
from schemathesis import GenerationMode
from schemathesis.checks import ignored_auth

from tests.house import Answer
from tests.web.operations import ADDRESS, CI, Endpoint

from .test_api_resource import FakeHistory

EXAMPLES = 8
"""Requests for each operation: half of them valid, half of them not."""
OPERATIONS = [
    ("GET", "/images"), ("GET", "/usage"), ("GET", "/history"), ("GET", "/pins"), ("POST", "/pins"),
    ("DELETE", "/pins"),
    ("POST", "/removals"), ("GET", "/warm-ups"), ("GET", "/warm-ups/{id}"), ("POST", "/warm-ups"),
    ("POST", "/refreshes"), ("POST", "/refresh"),
    ("GET", "/recalls"), ("POST", "/recalls"), ("DELETE", "/recalls"),
]  # fmt: skip
WITHOUT_INPUT = [
    ("GET", "/usage"), ("GET", "/pins"), ("GET", "/warm-ups"), ("GET", "/warm-ups/{id}"), ("GET", "/recalls"),
]  # fmt: skip
"""Operations of which nothing can break the schema."""
_FIELDS = ("method", "url", "headers", "params", "json", "data", "cookies")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Endpoint:
    return Endpoint(tmp_path_factory.mktemp("endpoint"), FakeHistory())


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((*each, GenerationMode.POSITIVE) for each in OPERATIONS),
        *((*each, GenerationMode.NEGATIVE) for each in OPERATIONS if each not in WITHOUT_INPUT),
    ],
)
def test_responses_conform(endpoint: Endpoint, method: str, path: str, mode: GenerationMode) -> None:
    """Status, media type and body are documented, and what breaks the schema is refused."""
    schema = schemathesis.openapi.from_dict(endpoint.get("/api/v1/openapi.json").json)
    strategy = schema[f"/api/v1{path}"][method].as_strategy(generation_mode=mode)

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy)
    def check(case: Any) -> None:
        # The token is added below; tests of the API itself leave it out.
        case.validate_response(_respond(endpoint, case), excluded_checks=[ignored_auth])

    check()


def test_every_operation_is_tested(endpoint: Endpoint) -> None:
    paths = endpoint.get("/api/v1/openapi.json").json["paths"]
    assert sorted(OPERATIONS) == sorted(
        (method.upper(), path.removeprefix("/api/v1")) for path, each in paths.items() for method in each
    )


def _respond(endpoint: Endpoint, case: Any) -> schemathesis.Response:
    """Send the request of a case to the endpoint."""
    arguments = case.as_transport_kwargs(base_url=f"http://{ADDRESS}")
    arguments["headers"].pop("Authorization", None)
    sent: Any = Request(**{key: arguments[key] for key in arguments if key in _FIELDS}).prepare()
    url = urlsplit(sent.url)
    body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
    kind = [f"Content-Type: {sent.headers['Content-Type']}"] if "Content-Type" in sent.headers else []
    target = f"{url.path}?{url.query}" if url.query else url.path
    return _as_response(endpoint.ask(sent.method, target, *kind, CI, body=body), sent)


def _as_response(answer: Answer, sent: PreparedRequest) -> schemathesis.Response:
    headers = {name: answer.lines(name) for name, _ in answer.headers}
    return schemathesis.Response(answer.status, headers, answer.body, sent, elapsed=0.0, verify=False)
