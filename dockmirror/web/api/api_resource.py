"""``/api/v1/``: images, history, pins, removals, warm-ups and recalls as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, TypeVar

from attrs import asdict, frozen
from pydantic import BaseModel, ValidationError
from twisted.web.resource import Resource

from ...config.explain import SHARED_WORDS
from ...config.field_types import suggest
from ...history.pulls import HistoryError, HistoryReader, InvalidFilter, PullFilter
from ...http.server_request import ServerRequest, parse_query
from ...oci.digest import Digest
from ...oci.errors import NameUnknown, RegistryError, Unavailable, Unsupported
from ...oci.manifest import Platform
from ...oci.request import decode_segments
from ...store.held_images import HeldImages, list_images
from ...store.store_index import StoreIndex
from ...system.times import format_timestamp
from ..auth import Actor, TokenAuth
from ..operator_actions import ImageActions, RecallActions
from ..pages.page import JSON, send
from ..respond import render_or_refuse
from .models import (
    BASE,
    DIGEST,
    IMAGE,
    PLATFORM,
    REASON,
    Description,
    HistoryQuery,
    ImageQuery,
    ImagesPage,
    ImagesQuery,
    NewPin,
    NewRecall,
    NewRefresh,
    NewRemoval,
    NewWarmUp,
    PinFields,
    PinsPage,
    PullsPage,
    RecalledFields,
    RecallQuery,
    RecallsPage,
    RefreshedTag,
    RemovalFields,
    UsagePage,
    WarmUpFields,
    WarmUpsPage,
    make_document,
)

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
M = TypeVar("M", bound=BaseModel)


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


@frozen
class Call:
    """A request to the API.

    :ivar actor: the client that changes something; None for a read.
    :ivar given: the query or the body.
    """

    given: Any = None
    parameter: str = ""
    actor: Actor | None = None

    @property
    def author(self) -> Actor:
        assert self.actor is not None, "the route needs a token"
        return self.actor


@frozen
class _Route:
    """An operation, and the method that answers it with the fields of its model."""

    description: Description
    answer: Callable[[Call], Coroutine[Any, Any, Mapping[str, Any] | None]]


class ApiResource(Resource):
    """Answers requests below the base path.

    :param index: of the cache's directory.
    :param history: None if no history is kept.
    :param recalls: makes and lifts recalls.
    """

    isLeaf = True

    def __init__(
        self,
        auth: TokenAuth,
        actions: ImageActions,
        index: StoreIndex,
        history: HistoryReader | None,
        recalls: RecallActions,
    ) -> None:
        super().__init__()
        self._recalls = recalls
        self._auth = auth
        self._actions = actions
        self._images = HeldImages(index.root)
        self._index = index
        self._history = history
        self._in_thread = actions.in_thread
        self._routes = self._list_routes()
        self._document = make_document([each.description for each in self._routes])

    def render(self, request: ServerRequest) -> int:
        return render_or_refuse(request, self._answer(request))

    async def _answer(self, request: ServerRequest) -> None:
        version, path = decode_segments(request.path)[2:3], decode_segments(request.path)[3:]
        if version != ["v1"]:
            raise Unsupported(f"not found; the API is at {BASE}/", status=404)
        if path == ["openapi.json"]:
            if request.method not in (b"GET", b"HEAD"):
                raise Unsupported()
            send(json.dumps(self._document).encode(), request, JSON)
            return
        matching = {
            each.description.method: each for each in self._routes if _matches(each.description, path)
        }
        method = "GET" if request.method == b"HEAD" else request.method.decode("ascii", "replace")
        if not matching:
            raise Unsupported(f"not found; {BASE}/openapi.json describes the API", status=404)
        if method not in matching:
            await self._refuse_method(request, matching)
            return
        route = matching[method]
        answer = await route.answer(await self._call(request, route.description, path))
        request.setResponseCode(route.description.status)
        if answer is None:
            request.finish()
            return
        model = route.description.returned
        assert model is not None, "a route that answers has a model"
        send(model.model_validate(answer).model_dump_json().encode(), request, JSON)

    async def _refuse_method(self, request: ServerRequest, matching: Mapping[str, _Route]) -> None:
        allowed = ", ".join([*matching, *(["HEAD"] if "GET" in matching else [])])
        request.setHeader("Allow", allowed)
        request.refuse(Unsupported(f"this path does not support the method; it supports {allowed}"))

    async def _call(self, request: ServerRequest, description: Description, path: list[str]) -> Call:
        if description.scope:
            actor: Actor | None = await self._auth.actor(request, description.scope)
        else:
            await self._auth.authorize_read(request)
            actor = None
        return Call(_parse_given(request, description), path[-1], actor)

    def _list_routes(self) -> tuple[_Route, ...]:
        get, post = partial(Description, "GET"), partial(Description, "POST", scope="write")
        delete = partial(Description, "DELETE", scope="write")
        return (
            _Route(get("/images", "The images held", ImagesPage, query=ImagesQuery), self._list),
            _Route(get("/usage", "The bytes held now", UsagePage), self._usage),
            _Route(get("/history", "Pulls, newest first", PullsPage, query=HistoryQuery), self._pulls),
            _Route(get("/pins", "All pins", PinsPage), self._pins),
            _Route(post("/pins", "Keep an image", PinFields, 201, body=NewPin), self._pin),
            _Route(delete("/pins", "Let an image be evicted", None, 204, query=ImageQuery), self._unpin),
            _Route(post("/removals", "Delete an image", RemovalFields, body=NewRemoval), self._remove),
            _Route(get("/warm-ups", "Warm-ups of the last day", WarmUpsPage), self._warm_ups),
            _Route(get("/warm-ups/{id}", "One warm-up", WarmUpFields), self._warm_up),
            _Route(post("/warm-ups", "Pull an image", WarmUpFields, 202, body=NewWarmUp), self._warm),
            _Route(get("/recalls", "The recalls in force", RecallsPage), self._list_recalls),
            _Route(post("/recalls", "Recall a digest", RecalledFields, 201, body=NewRecall), self._recall),
            _Route(delete("/recalls", "Lift a recall", None, 204, query=RecallQuery), self._lift),
            _Route(post("/refreshes", "Pull a tag anew", WarmUpFields, 202, body=NewRefresh), self._refresh),
            _Route(post("/refresh", "Ask about a tag", WarmUpFields, 202, body=RefreshedTag), self._ask_tag),
        )  # fmt: skip

    async def _list(self, call: Call) -> Mapping[str, Any]:
        query: ImagesQuery = call.given

        def listed() -> Mapping[str, Any]:
            found: list[dict[str, Any]] = []
            for repository in self._images.list_repositories():
                if repository.name <= query.after or not fnmatchcase(repository.name, query.name):
                    continue
                if len(found) >= query.limit:
                    return {"images": found, "next": found[-1]["repository"]}
                found += [each.fields() for each in list_images(self._images, repository)]
            return {"images": found, "next": None}

        return await self._in_thread(listed)

    async def _usage(self, _: Call) -> Mapping[str, Any]:
        def summed() -> Mapping[str, Any]:
            held = self._index.snapshot()
            return {
                "bytes": held.held_bytes,
                "registries": [{"name": name, **asdict(each)} for name, each in held.by_registry.items()],
                "repositories": [{"name": name, **asdict(each)} for name, each in held.by_repository.items()],
            }

        return await self._in_thread(summed)

    async def _pulls(self, call: Call) -> Mapping[str, Any]:
        if self._history is None:
            raise NameUnknown("the mirror keeps no history: 'history' is false", status=404)
        query: HistoryQuery = call.given
        conditions = query.model_dump(exclude={"limit", "after"})
        wanted = PullFilter(**conditions)
        read = partial(self._history.pulls, wanted, query.limit, query.after)
        try:
            return {"pulls": [asdict(each) for each in await self._in_thread(read)]}
        except InvalidFilter as error:
            raise RegistryError(str(error), status=400) from None
        except HistoryError as error:
            raise Unavailable(str(error), status=503) from None

    async def _pins(self, _: Call) -> Mapping[str, Any]:
        return {"pins": [_pin_fields(pin, refreshed) for pin, refreshed in await self._actions.pins()]}

    async def _pin(self, call: Call) -> Mapping[str, Any]:
        new: NewPin = call.given
        return _pin_fields(await self._actions.pin(call.author, new.image, _platforms(new.platforms)), 0.0)

    async def _unpin(self, call: Call) -> None:
        await self._actions.unpin(call.author, call.given.image)

    async def _remove(self, call: Call) -> Mapping[str, Any]:
        new: NewRemoval = call.given
        if new.dry_run:
            return (await self._actions.plan_removal(new.image)).fields()
        return (await self._actions.remove(call.author, new.image)).fields()

    async def _warm_ups(self, _: Call) -> Mapping[str, Any]:
        return {"warm_ups": [each.fields() for each in await self._actions.warm_ups()]}

    async def _warm_up(self, call: Call) -> Mapping[str, Any]:
        return (await self._actions.warm_up(call.parameter)).fields()

    async def _warm(self, call: Call) -> Mapping[str, Any]:
        new: NewWarmUp = call.given
        platforms = _platforms(new.platforms)
        return (await self._actions.warm(call.author, new.image, platforms, new.referrers)).fields()

    async def _list_recalls(self, _: Call) -> Mapping[str, Any]:
        return {"recalls": [each.fields() for each in await self._recalls.list()]}

    async def _recall(self, call: Call) -> Mapping[str, Any]:
        new: NewRecall = call.given
        made = await self._recalls.recall(call.author, Digest.parse(new.digest), new.reason, new.shared)
        figures = {"images": made.images, "freed": made.freed, "in_bucket": made.in_bucket}
        return {**made.recall.fields(), **figures}

    async def _lift(self, call: Call) -> None:
        await self._recalls.lift(call.author, Digest.parse(call.given.digest))

    async def _refresh(self, call: Call) -> Mapping[str, Any]:
        new: NewRefresh = call.given
        platforms = _platforms(new.platforms)
        return (await self._actions.warm(call.author, new.image, platforms, refresh=True)).fields()

    async def _ask_tag(self, call: Call) -> Mapping[str, Any]:
        return (await self._actions.refresh_tag(call.author, call.given.image)).fields()


def _matches(description: Description, path: list[str]) -> bool:
    parts = description.path.split("/")[1:]
    pairs = zip(parts, path, strict=False)
    return len(parts) == len(path) and all(
        part == given or (part[0] == "{" and given) for part, given in pairs
    )


def _parse_given(request: ServerRequest, description: Description) -> BaseModel | None:
    query, body = description.query, description.body
    if query is not None:
        pairs = _unique_query(request)
        return _parse(query, lambda: query.model_validate(pairs))
    if body is None:
        return None
    kind = (request.field("content-type") or "").partition(";")[0].strip().lower()
    if kind != JSON:  # no page of another site can send this type without asking first
        raise Unsupported("expected 'Content-Type: application/json'", status=415)
    assert request.content is not None, "the site collects bodies"
    data = request.content.read()
    return _parse(body, lambda: body.model_validate_json(data))


def _unique_query(request: ServerRequest) -> Mapping[str, str]:
    pairs = parse_query(request)
    if len(dict(pairs)) < len(pairs):
        raise RegistryError("a parameter is given more than once", status=400)
    return dict(pairs)


def _parse(model: type[BaseModel], validate: Callable[[], M]) -> M:
    try:
        return validate()
    except ValidationError as error:
        raise RegistryError(describe_invalid(error, model), status=400) from None


def _platforms(names: tuple[str, ...]) -> tuple[Platform, ...]:
    return tuple(map(Platform.parse, names))


def _pin_fields(pin: Any, refreshed: float) -> Mapping[str, Any]:
    return {
        "image": str(pin),
        "platforms": list(map(str, pin.platforms)),
        "refreshed": format_timestamp(refreshed) if refreshed else None,
    }
