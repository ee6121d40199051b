"""The OpenAPI document of the API, made from its routes and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .models import ErrorsBody

BASE = "/api/v1"
_REF = "#/components/schemas/{model}"
_REASONS = {
    400: "the request is malformed",
    401: "a token is missing or wrong",
    403: "the token may not do this, or the host name is not the mirror's",
    404: "the cache has no such thing",
    405: "the method is not allowed",
    413: "the body is too large",
    415: "the body is not JSON",
    429: "too many requests",
    503: "the cache or the history does not work",
}
_EVERY_ROUTE = (400, 401, 403, 404, 429, 503)


@frozen
class Description:
    """An operation of the API.

    :ivar path: below the base; a segment in braces is a parameter.
    :ivar returned: the model of its response; None for one without a body.
    :ivar query: the model of its query.
    :ivar body: the model of its JSON body.
    :ivar scope: the scope of the token that it needs; empty if it needs none.
    """

    method: str
    path: str
    summary: str
    returned: type[BaseModel] | None
    status: int = 200
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    scope: str = ""


def make_document(descriptions: Sequence[Description]) -> dict[str, Any]:
    """Return the document as JSON has it."""
    models: list[type[BaseModel]] = [ErrorsBody]
    models += [each for d in descriptions for each in (d.returned, d.body) if each]
    _, schemas = models_json_schema([_validated(each) for each in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in descriptions:
        paths.setdefault(f"{BASE}{each.path}", {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dockmirror",
            "version": "1",
            "description": "Images in the cache of a mirror of container registries.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "The token's name and secret"},
                "bearer": {"type": "http", "scheme": "bearer", "description": "NAME.SECRET of the token"},
            },
        },
    }


def _validated(model: type[BaseModel]) -> tuple[type[BaseModel], Literal["validation"]]:
    return model, "validation"


def _operation(each: Description) -> dict[str, Any]:
    succeeds: dict[str, Any] = {"description": "done"}
    if each.returned:
        succeeds["content"] = _json(each.returned)
    failures = [*_EVERY_ROUTE, *((413, 415) if each.body else ())]
    operation: dict[str, Any] = {
        "summary": each.summary,
        "parameters": [*_path_parameters(each.path), *_query_parameters(each.query)],
        "responses": {
            str(each.status): succeeds,
            **{
                str(status): {"description": _REASONS[status], "content": _json(ErrorsBody)}
                for status in failures
            },
        },
        "security": [{"basic": []}, {"bearer": []}] if each.scope else [{}, {"basic": []}, {"bearer": []}],
    }
    if each.body:
        operation["requestBody"] = {"required": True, "content": _json(each.body)}
    return operation


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query_parameters(query: type[BaseModel] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema: Mapping[str, Any] = query.model_json_schema()
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": dict(fields)}
        for name, fields in schema["properties"].items()
    ]
