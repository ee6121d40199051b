"""Errors in the settings, in words: each with its place, its key, and what was expected."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen
from pydantic import BaseModel, ValidationError

from .field_types import suggest
from .image_rules import BudgetSettings, GateSettings, PolicySettings, RetentionSettings, SyncSettings
from .settings import AccessSettings, ConfigurationError, RedirectSettings, Settings, UpstreamSettings

SHARED_WORDS = {
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a smaller number",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
    "literal_error": "expected {expected}",
    "missing": "is missing",
}
"""Our words for pydantic's types of errors, in settings and in input of the API."""
_WORDS = {
    **SHARED_WORDS,
    "string_type": "expected a text in quotes",
    "path_type": "expected a path in quotes",
    "tuple_type": 'expected a list, such as ["a", "b"]',
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "too_short": "expected at least one",
}
_SHOWN_LENGTH = 40


@frozen
class SettingsSource:
    """The values that one source sets, with tables nested as in the file.

    :ivar text: the text of the file, for the numbers of its lines.
    :ivar copied: the paths of values that were copied from other keys of the source.
    """

    name: str
    values: Mapping[str, Any]
    text: str = ""
    copied: Collection[Sequence[str]] = ()

    def has(self, path: Sequence[str]) -> bool:
        """The source sets the value at this path."""
        return has_value(self.values, path)

    def place(self, path: Sequence[str]) -> str:
        """Return the source's name, followed by the number of the line if it is a file."""
        line = find_line(self.text, path)
        return f"{self.name}:{line}" if line else self.name


@frozen
class Problem:
    """A setting that is invalid.

    :ivar path: its key, with those of the tables that it is in.
    """

    path: Sequence[str]
    message: str

    def describe(self, sources: Sequence[SettingsSource]) -> str:
        """Return a line with the place, the key and the message."""
        path = self.path if any(each.has(self.path) for each in sources) else self.path[:-1]
        place = next((f"{each.place(path)}: " for each in reversed(sources) if each.has(path)), "")
        return f"{place}{'.'.join(self.path)}{': ' if self.path else ''}{self.message}"


def has_value(values: Any, path: Sequence[str]) -> bool:
    """Return whether nested tables, and lists of them, have a value at this path."""
    for key in path:
        if isinstance(values, list) and key.isdigit():
            values = dict(enumerate(values)).get(int(key))
            if values is None:
                return False
        elif not isinstance(values, dict):
            return True
        elif key in values:
            values = values[key]
        else:
            return False
    return bool(path)


def find_line(text: str, path: Sequence[str]) -> int | None:
    """Return the number of the line at which the statement begins that sets a value, or None.

    The statement is the one without which the lines before it do not have the value.
    """
    lines, start = text.splitlines(keepends=True), 1
    for end in range(1, len(lines) + 1):
        try:
            values = tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # within a statement of several lines
        if has_value(values, path):
            return start
        start = end + 1
    return None


def invalid(problems: Iterable[Problem], sources: Sequence[SettingsSource]) -> ConfigurationError:
    """Return the error that has all problems, each once."""
    return ConfigurationError(*dict.fromkeys(each.describe(sources) for each in problems))


_HIDDEN = ("[key]", "[switch]", "[tables]")
"""Parts of pydantic's paths that are no keys of the settings."""


def explain(error: ValidationError, sources: Sequence[SettingsSource] = ()) -> Iterator[Problem]:
    """Yield all problems that pydantic found, in our words; an invalid value that was copied counts once."""
    copied = {tuple(path) for source in sources for path in source.copied}
    for each in error.errors():
        path = [str(part) for part in each["loc"] if part not in _HIDDEN]
        if tuple(path[:3]) in copied:
            continue
        kind, given = each["type"], each["input"]
        if kind == "value_error":
            yield Problem(path, each["msg"].removeprefix("Value error, "))
        elif kind == "extra_forbidden":
            yield Problem(path, f"there is no such setting{_find_place(path, given)}")
        else:
            words = _WORDS.get(kind, f"expected another value: {each['msg']}").format(**each.get("ctx", {}))
            hint = suggest(str(given), _choices(each)) if kind == "literal_error" else ""
            yield Problem(path, f"{words}{_show(given, kind)}{hint}")


def _choices(error: Any) -> list[str]:
    return str(error["ctx"]["expected"]).replace(" or ", ", ").replace("'", "").split(", ")


def _show(given: object, kind: str) -> str:
    """Return what was given, unless it is long or a text where no text belongs, which may be a secret."""
    shown = json.dumps(given) if isinstance(given, bool | int | float | str) else ""
    is_choice = not isinstance(given, str) or kind in ("literal_error", "bool_parsing", "int_parsing")
    return f", not {shown}" if is_choice and 0 < len(shown) <= _SHOWN_LENGTH else ""


_TABLES: Mapping[str, tuple[str, type[BaseModel]]] = {
    "": ("above the first table", Settings),
    "access": ("in [access]", AccessSettings),
    "gate": ("in [gate]", GateSettings),
    "upstreams": ("in an upstream's table", UpstreamSettings),
    "policy": ("in a [[policy]] table", PolicySettings),
    "budget": ("in a [[budget]] table", BudgetSettings),
    "retention": ("in a [[retention]] table", RetentionSettings),
    "sync": ("in a [[sync]] table", SyncSettings),
    "redirect": ("in a [[redirect]] table", RedirectSettings),
}
"""The place and the keys of each table, by its name."""


def _keys(table: str) -> list[str]:
    return [field.alias or key for key, field in _TABLES[table][1].model_fields.items()]


def _is_table(given: object) -> bool:
    """Return whether a value is a table, or a list of tables."""
    return all(isinstance(each, dict) for each in (given if isinstance(given, list) else [given]))


def _find_place(path: Sequence[str], given: object) -> str:
    """Name the table that a misplaced key belongs in, or else the most similar key.

    For a table, another table of a similar name comes first: a key of that name is no table.
    """
    key, table = path[-1], "" if len(path) == 1 else path[0]
    if not table and _is_table(given) and (hint := suggest(key, filter(None, _TABLES))):
        return hint
    for other, (place, _) in _TABLES.items():
        if other != table and key in _keys(other):
            return f" here: it belongs {place}"
    return suggest(key, _keys(table)) if table in _TABLES else ""
