"""Load the settings from the file, the environment and the command line into one frozen value."""

from __future__ import annotations

import os
import re
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from .consistency import find_contradictions
from .explain import Problem, SettingsSource, explain, has_value, invalid
from .field_types import SettingsFile, split_words
from .known_registries import KNOWN, KnownRegistry
from .settings import ConfigurationError, Settings

PREFIX = "DOCKMIRROR_"
PASSWORD_PREFIX = f"{PREFIX}PASSWORD_"
"""The prefix of variables that hold passwords; they are no settings, so no setting holds a password."""
_SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in pods for Services with names that begin with ``dockmirror``."""
_AT_LINE = re.compile(r"\(at line ([0-9]+)")
_TABLES: Mapping[str, Any] = {"access": {}, "gate": {}, "upstreams": {"*": {}}}
"""The tables that are merged key by key; any other value is replaced."""


_NAMING = ("domain", "hosts", "names")
_UPSTREAM_NAMING = ("url", "replicas", "registry", "same_registry_as", "aliases", "short_names")
"""The keys that say by which names clients reach the mirror and its upstreams."""


def load(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings.  The command line overrides the environment, which overrides the file.

    :param options: the options of the command line, by key; ``config`` names the file.
    :raises ConfigurationError: with a line for each problem: its source, the key, and the expected value.
    """
    return merge_sources(read_sources(options, environ))


def read_sources(options: Mapping[str, Any], environ: Mapping[str, str]) -> Sequence[SettingsSource]:
    """Return the values of all sources, in increasing order of precedence.

    :raises ConfigurationError: as ``load`` does.
    """
    variables = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and not key.startswith(PASSWORD_PREFIX) and not _SERVICE_LINK.fullmatch(key)
    }
    path = options.get("config") or variables.pop("config", None)
    variables.pop("config", None)
    operators = [
        _read(Path(path)) if path else SettingsSource("", {}),
        _with_tables("the environment", variables),
        _with_tables("the command line", {k: v for k, v in options.items() if v and k != "config"}),
    ]
    for known in KNOWN:
        if not any(has_value(source.values, ("upstreams", known.name, "url")) for source in operators):
            operators = [_share_url(source, known) for source in operators]
    return [
        SettingsSource("default", _defaults(environ)),
        SettingsSource("known", {"upstreams": {known.name: _known_table(known) for known in KNOWN}}),
        *operators,
    ]


def merge_sources(sources: Sequence[SettingsSource]) -> Settings:
    """Merge and validate the values of all sources.

    :raises ConfigurationError: as ``load`` does.
    """
    merged: dict[str, Any] = {}
    if problems := [problem for source in sources for problem in _check_tables(source)]:
        raise invalid(problems, sources)
    for source in sources:
        merged = _merge_tables(merged, source.values, _TABLES)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise invalid(explain(error, sources), sources) from None
    if problems := list(find_contradictions(settings)):
        raise invalid(problems, sources)
    return settings


def pack(settings: Settings) -> dict[str, Any]:
    """Return the settings, with the contents of the files that were read, as JSON for another process."""
    files = {
        str(file): b64encode(file.content).decode()
        for file in _each_file(settings)
        if file.content is not None
    }
    return {"settings": settings.as_json(), "files": files}


def unpack(packed: Mapping[str, Any]) -> Settings:
    """Return the settings that another process has validated; their files are not checked again.

    :param packed: see ``pack``.
    :raises ConfigurationError: when they are invalid in this process.
    """
    contents = {path: b64decode(data) for path, data in packed["files"].items()}
    try:
        return Settings.model_validate_json(packed["settings"], context=contents)
    except ValidationError as error:
        raise invalid(explain(error), []) from None


def _each_file(value: object) -> Iterator[SettingsFile]:
    match value:
        case SettingsFile():
            yield value
        case BaseModel():
            yield from _each_file(tuple(each for _, each in value))
        case dict():
            yield from _each_file(tuple(value.values()))
        case tuple():
            for each in value:
                yield from _each_file(each)


def load_names(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return settings with names and addresses only, for a machine without the mirror's other files.

    :raises ConfigurationError: as ``load`` does.
    """
    return merge_sources([_keep_names(source) for source in read_sources(options, environ)])


def _keep_names(source: SettingsSource) -> SettingsSource:
    if problems := list(_check_tables(source)):
        raise invalid(problems, [source])
    upstreams = {
        name: {key: value for key, value in table.items() if key in _UPSTREAM_NAMING}
        for name, table in source.values.get("upstreams", {}).items()
    }
    names = {key: value for key, value in source.values.items() if key in _NAMING}
    return SettingsSource(source.name, {**names, "upstreams": upstreams})


def find_origin(sources: Sequence[SettingsSource], path: Sequence[str]) -> str:
    """Return the name of the source that a value comes from."""
    return next((source.name for source in reversed(sources) if source.has(path)), sources[0].name)


def _merge_tables(lower: Mapping[str, Any], upper: Mapping[str, Any], tables: Any) -> dict[str, Any]:
    """Merge nested tables key by key; replace any other value."""
    merged = dict(lower)
    for key, value in upper.items():
        inner = tables.get(key, tables.get("*"))
        merged[key] = value if inner is None else _merge_tables(lower.get(key, {}), value, inner)
    return merged


def _check_tables(source: SettingsSource) -> Iterator[Problem]:
    tables = source.values.get("upstreams", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        yield Problem(("upstreams",), "expected a table for each, such as [upstreams.docker]")
    for name in ("access", "gate"):
        if not isinstance(source.values.get(name, {}), dict):
            yield Problem((name,), f"expected a table, [{name}]")


def _share_url(source: SettingsSource, known: KnownRegistry) -> SettingsSource:
    """Return the source with the followed registry's url set for this registry too."""
    tables = source.values.get("upstreams")
    followed = tables.get(known.follows) if isinstance(tables, dict) else None
    if not isinstance(tables, dict) or not isinstance(followed, dict) or "url" not in followed:
        return source
    own = tables.get(known.name, {})
    if not isinstance(own, dict):
        return source
    return SettingsSource(
        source.name,
        {**source.values, "upstreams": {**tables, known.name: {**own, "url": followed["url"]}}},
        source.text,
        [*source.copied, ("upstreams", known.name, "url")],
    )


def _defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return directories: of systemd (``CacheDirectory=``), of the system for root, or of the user (XDG)."""
    cache = _directory(environ, "CACHE_DIRECTORY", "/var/cache", "XDG_CACHE_HOME", ".cache")
    state = _directory(environ, "STATE_DIRECTORY", "/var/lib", "XDG_STATE_HOME", ".local/state")
    return {
        "cache": cache,
        "certificates": state / "certificates",
        "history": state / "history",
        "access": {"keys": state / "keys"},
    }


def _directory(environ: Mapping[str, str], given: str, system: str, users: str, home: str) -> Path:
    if places := environ.get(given):
        return Path(places.partition(":")[0])
    if os.getuid() == 0:
        return Path(system) / "dockmirror"
    own = environ.get(users) or Path(environ.get("HOME", "~")).expanduser() / home
    return Path(own) / "dockmirror"


def _read(path: Path) -> SettingsSource:
    try:
        text = path.read_text("utf-8")
        return SettingsSource(str(path), tomllib.loads(text), text)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: is not TOML: it is no text in UTF-8") from None
    except ValueError as error:
        line = _AT_LINE.search(str(error))
        place = f"{path}:{line[1]}" if line else str(path)
        raise ConfigurationError(f"{place}: is not TOML: {error}") from None


def _with_tables(source: str, values: Mapping[str, Any]) -> SettingsSource:
    """Convert ``upstream``, a list of NAME=URL, and ``access_KEY`` to tables as in the file."""
    access = {key.removeprefix("access_"): values[key] for key in values if key.startswith("access_")}
    rest = {key: value for key, value in values.items() if not key.startswith("access_")}
    pairs = [_parse_upstream(source, text) for text in split_words(rest.pop("upstream", ""))]
    tables = {"upstreams": {name: {"url": url} for name, url in pairs}, "access": access}
    return SettingsSource(source, {**rest, **{key: table for key, table in tables.items() if table}})


def _parse_upstream(source: str, text: str) -> tuple[str, str]:
    name, equals, url = text.partition("=")
    if not equals:
        raise ConfigurationError(f"{source}: upstream: expected NAME=URL, not {text!r}")
    return name, url


def _known_table(known: KnownRegistry) -> dict[str, Any]:
    return {key: getattr(known, key) for key in ("url", "registry", "realms", "aliases", "short_names")}


DEFAULT_FILE = Path("/etc/dockmirror.toml")


def find_settings_file(
    given: str | Path | None, environ: Mapping[str, str], default: Path = DEFAULT_FILE
) -> Path | None:
    """Return the given file, or that of ``DOCKMIRROR_CONFIG``, or the default one if it exists, or None.

    Only a default file that does not exist is passed over: one that cannot be read is an error for its
    reader, since the mirror would run with other settings than the operator's.
    """
    named = given or environ.get("DOCKMIRROR_CONFIG")
    if named:
        return Path(named)
    try:
        default.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass
    return default


def load_found(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Return the settings, as ``load`` does, with the file that is found now.

    :param options: the options of the command line; ``config`` may name the file.
    """
    return load({**options, "config": find_settings_file(options.get("config"), environ)}, environ)
