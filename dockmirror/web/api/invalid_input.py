"""Errors in the input of the API, in words: each with its key, and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ...config.explain import SHARED_WORDS
from ...config.field_types import suggest
from .models import DIGEST, IMAGE, PLATFORM, REASON

_PATTERNS = {
    IMAGE: "expected the name of an image, such as docker.io/library/nginx:1.27",
    PLATFORM: "expected a platform, such as linux/amd64",
    REASON: "expected a reason: refused clients see it",
    DIGEST: "expected a digest, sha256: and 64 hexadecimal digits",
}
_WORDS = {
    **SHARED_WORDS,
    "json_invalid": "the body is no JSON: {error}",
    "model_type": "expected a JSON object",
    "string_type": "expected a text",
    "string_too_short": "expected a text that is not empty",
    "string_too_long": "expected at most {max_length} characters",
    "tuple_type": "expected a list",
    "too_long": "expected at most {max_length} values",
    "float_parsing": "expected a number",
    "finite_number": "expected a number",
}
_MOST = 5
"""Problems that are named."""


def describe_invalid(error: ValidationError, model: type[BaseModel]) -> str:
    """Return a sentence that says what is wrong with the input for a model."""
    return "; ".join(_describe(each, model) for each in error.errors()[:_MOST])


def _describe(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    key, kind = ".".join(map(str, problem["loc"])), problem["type"]
    context = problem.get("ctx", {})
    if kind == "extra_forbidden":
        known = ", ".join(model.model_fields)
        words = f"there is no such key{suggest(key, model.model_fields)}; the keys are {known}"
    elif kind == "string_pattern_mismatch":
        words = _PATTERNS[context["pattern"]]
    else:
        words = _WORDS.get(kind, "expected another value: {msg}").format(msg=problem["msg"], **context)
    return f"{key}: {words}" if key else words
