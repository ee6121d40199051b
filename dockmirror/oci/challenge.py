"""Challenges of ``WWW-Authenticate``, parsed leniently and written strictly.

Source: RFC 9110, 11.2 to 11.6.1.  Upstreams send several challenges in one line or in several lines, quoted
commas, and values without the quotes that they need; clients expect one ``Bearer`` with lower-case keys and
quoted values, and stop at an empty one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SEPARATOR = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]+|(?=[\s,]|$))', re.DOTALL)
_SCHEME = re.compile(rf"({_WORD})(?=[\s,]|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
_UNREADABLE = re.compile(rf"{_WORD}|.", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@frozen
class Challenge:
    """An authentication scheme that a server offers, and its parameters with keys in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)

    def __str__(self) -> str:
        parameters = ",".join(f'{key}="{_quoted(value)}"' for key, value in self.parameters.items() if value)
        return f"{self.scheme} {parameters}" if parameters else self.scheme

    def get(self, key: str) -> str:
        """Return a parameter's value, or an empty string."""
        return self.parameters.get(key, "")


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse all challenges of ``WWW-Authenticate`` lines in order; unreadable parts are skipped."""
    return tuple(challenge for line in lines for challenge in _parse_line(line))


def find_challenge(challenges: Iterable[Challenge], scheme: str) -> Challenge | None:
    """Return the first challenge of that scheme, ignoring case."""
    return next((each for each in challenges if each.scheme.lower() == scheme.lower()), None)


def _parse_line(line: str) -> list[Challenge]:
    challenges: list[tuple[str, dict[str, str]]] = []
    position = _skip(_SEPARATOR, line, 0)
    while position < len(line):
        if challenges and (parameter := _PARAMETER.match(line, position)):
            challenges[-1][1].setdefault(parameter[1].lower(), _unquoted(parameter[2]))
            position = parameter.end()
        elif scheme := _SCHEME.match(line, position):
            challenges.append((scheme[1], {}))
            token68 = _TOKEN68.match(line, scheme.end())
            position = token68.end() if token68 else scheme.end()
        else:
            position = _skip(_UNREADABLE, line, position)
        position = _skip(_SEPARATOR, line, position)
    return [Challenge(scheme, parameters) for scheme, parameters in challenges]


def _skip(pattern: re.Pattern[str], line: str, position: int) -> int:
    match = pattern.match(line, position)
    return match.end() if match else position


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _ESCAPE.sub(r"\1", value[1:-1])
    return value.strip('"')


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
