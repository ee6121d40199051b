"""The values that the API takes and returns, and the OpenAPI document made from them and the routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from attrs import frozen
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.json_schema import models_json_schema

_COMPONENT = "[a-z0-9]+([._-][a-z0-9]+)*"
IMAGE = (
    f"^{_COMPONENT}((:[0-9]{{1,5}})?/{_COMPONENT})?(/{_COMPONENT})*"
    "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$"
)
PLATFORM = r"^[A-Za-z0-9_.-]{1,50}/[A-Za-z0-9_.-]{1,50}(/[A-Za-z0-9_.-]{1,50})?$"
REASON = r"\S"
DIGEST = "^sha256:[a-f0-9]{64}$"
_IMAGE_LENGTH = 255 - len("docker.io/library/")
"""A short name, too, has at most 255 characters when it is complete, as names of repositories may have."""
Image = Annotated[
    str,
    StringConstraints(min_length=1, max_length=_IMAGE_LENGTH, pattern=IMAGE),
    Field(description="An image, such as docker.io/library/nginx:1.27 or ghcr.io/o/r@sha256:…"),
]
PlatformName = Annotated[
    str,
    StringConstraints(pattern=PLATFORM),
    Field(description="Such as linux/amd64"),
]
DigestText = Annotated[str, StringConstraints(pattern=DIGEST), Field(description="Such as sha256:…")]
Platforms = Annotated[tuple[PlatformName, ...], Field(max_length=50)]
Limit = Annotated[int, Field(ge=1, le=1000)]
Text = Annotated[str, StringConstraints(max_length=500)]
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


class _Given(BaseModel):
    """Input of a client: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Returned(BaseModel):
    """Output of the API."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ImagesQuery(_Given):
    """The repositories of which images are listed."""

    name: Text = Field("*", description="A glob over the repository's name, which begins with the registry")
    limit: Limit = 100
    after: Text = Field("", description="The repository after which the list begins")


class HistoryQuery(_Given):
    """The pulls that are listed."""

    image: Text = Field("", description="A glob over registry/repository or registry/repository:tag")
    digest: Text = ""
    client: Text = Field("", description="An address or a network")
    user: Text = ""
    since: float = Field(0.0, ge=0, le=1e11, description="Seconds since the epoch")
    until: float = Field(1e11, ge=0, le=1e11, description="Seconds since the epoch")
    outcome: Literal["", "running", "served", "failed"] = ""
    limit: Limit = 100
    after: int = Field(0, ge=0, le=2**63 - 1, description="The number of the last pull of the previous page")


class ImageQuery(_Given):
    """The image that an action is for."""

    image: Image


class NewPin(_Given):
    """An image to keep."""

    image: Image
    platforms: Platforms = ()


class NewRemoval(_Given):
    """An image to delete; a digest alone is deleted from every repository."""

    image: Image
    dry_run: bool = Field(False, description="Only report what would be deleted")


class NewWarmUp(_Given):
    """An image to pull into the cache."""

    image: Image
    platforms: Platforms = ()
    referrers: bool = Field(False, description="Pull signatures, SBOMs and attestations, too")


class NewRecall(_Given):
    """A digest to withdraw from service."""

    digest: DigestText
    reason: Annotated[str, StringConstraints(pattern=REASON, max_length=500)] = Field(
        description="Refused clients see it"
    )
    shared: bool = Field(False, description="Recall a layer though several images have it")


class RecallQuery(_Given):
    """The recall to lift."""

    digest: DigestText


class NewRefresh(_Given):
    """A tag of which the upstream is asked what it names now, and which is then pulled."""

    image: Image
    platforms: Platforms = ()


class RefreshedTag(_Given):
    """A tag of which the upstream is asked what it names now."""

    image: Image


class ImageFields(_Returned):
    """A tag, or a manifest that has none."""

    repository: str
    tag: str | None
    digest: str
    size: int = Field(description="The bytes of it that are held")
    complete: bool = Field(description="Whether all of it is held, for all of its platforms")
    platforms: dict[str, bool] = Field(description="The platforms of an index, and whether each is complete")
    used: str = Field(description="When it was last used (ISO 8601)")


class ImagesPage(_Returned):
    """A page of images."""

    images: list[ImageFields]
    next: str | None = Field(description="The value of 'after' for the next page, if there is one")


class PullFields(_Returned):
    """An image that a client pulled, or is pulling."""

    number: int
    began: float
    seconds: float
    client: str
    user: str
    host: str
    registry: str
    repository: str
    reference: str
    digest: str
    platform: str
    layers: int
    cached_layers: int
    cached_bytes: int
    upstream_bytes: int
    saved_requests: int
    saved_pulls: int
    outcome: Literal["running", "served", "failed"]
    reason: str


class PullsPage(_Returned):
    """A page of pulls, newest first."""

    pulls: list[PullFields]


class PinFields(_Returned):
    """A pinned image."""

    image: str
    platforms: list[str] = Field(description="The platforms that are refreshed; all if empty")
    refreshed: str | None = Field(description="When it was last pulled again (ISO 8601)")


class PinsPage(_Returned):
    """All pins."""

    pins: list[PinFields]


class DeletionFields(_Returned):
    """A deletion from a repository, done or planned."""

    repository: str
    tags: list[str]
    contents: list[str]


class RemovalFields(_Returned):
    """The outcome of a removal."""

    deleted: list[DeletionFields]
    pinned: list[str] = Field(description="Pins because of which some of it is fetched again")
    freed: int = Field(description="The bytes freed, or that a dry run would free")


class WarmUpFields(_Returned):
    """A pull into the cache, and how far it is."""

    id: str
    image: str
    platforms: list[str]
    referrers: bool
    refresh: bool
    created: str
    state: Literal["waiting", "running", "done", "failed"]
    manifests: int
    held: int = Field(description="Blobs that the cache had already")
    fetched: int
    bytes: int
    error: str | None
    tag_only: bool = Field(description="Whether only the tag's manifest is asked for")
    digest: str | None = Field(description="The digest that the tag names, if only that was asked for")


class WarmUpsPage(_Returned):
    """The warm-ups of the last day, and the refreshed tags of the last minutes, the oldest first."""

    warm_ups: list[WarmUpFields]


class RecallFields(_Returned):
    """A recall in force."""

    digest: str
    reason: str
    since: str


class RecalledFields(RecallFields):
    """A recall that was made."""

    images: int = Field(description="How many images it refuses")
    freed: int = Field(description="The bytes freed")
    in_bucket: bool = Field(description="False without a bucket, or if it must yet be brought there")


class RecallsPage(_Returned):
    """The recalls in force, the oldest first."""

    recalls: list[RecallFields]


class UsageFields(_Returned):
    """The bytes that a registry, or a repository, holds."""

    name: str
    bytes: int
    shared: int = Field(description="The bytes of these that others of the list hold, too")
    contents: int


class UsagePage(_Returned):
    """The bytes that the cache holds now."""

    bytes: int
    registries: list[UsageFields]
    repositories: list[UsageFields]


class ErrorFields(_Returned):
    """An error."""

    code: str
    message: str
    detail: None


class ErrorsBody(_Returned):
    """Why a request was refused, in the format of the distribution specification."""

    errors: list[ErrorFields]


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
    """Return the OpenAPI document as JSON has it."""
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
