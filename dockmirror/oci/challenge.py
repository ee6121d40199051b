"""Challenges, parsed leniently and written strictly.

Source: RFC 9110, 11.2 to 11.6.1.  Upstreams send several challenges in a line or in several lines,
quoted commas, values that should have been quoted; clients read one ``Bearer`` with quoted values in
lower-case keys and stop at an empty one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

_WORD = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_GAP = re.compile(r"[\s,]*")
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]+|(?=[\s,]|$))', re.DOTALL)
_SCHEME = re.compile(rf"({_WORD})(?=[\s,]|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
_JUNK = re.compile(rf"{_WORD}|.", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@frozen
class Challenge:
    """One way in that a server offers: a scheme and its parameters, keys in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(factory=dict)

    def __str__(self) -> str:
        written = ",".join(f'{key}="{_quoted(value)}"' for key, value in self.parameters.items() if value)
        return f"{self.scheme} {written}" if written else self.scheme

    def get(self, key: str) -> str:
        """A parameter's value; empty when it was not given."""
        return self.parameters.get(key, "")

    def is_scheme(self, scheme: str) -> bool:
        """Whether this is that scheme, which has no letter case."""
        return self.scheme.lower() == scheme.lower()


def parse_challenges(lines: Iterable[str]) -> tuple[Challenge, ...]:
    """Every challenge of these ``WWW-Authenticate`` lines, in order; what cannot be read is passed over."""
    return tuple(challenge for line in lines for challenge in _parse_line(line))


def find_challenge(challenges: Iterable[Challenge], scheme: str) -> Challenge | None:
    """The first challenge of that scheme."""
    return next((c for c in challenges if c.is_scheme(scheme)), None)


def _parse_line(line: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = _after(_GAP, line, 0)
    while at < len(line):
        if found and (parameter := _PARAMETER.match(line, at)):
            found[-1][1].setdefault(parameter[1].lower(), _unquoted(parameter[2]))
            at = parameter.end()
        elif scheme := _SCHEME.match(line, at):
            found.append((scheme[1], {}))
            token68 = _TOKEN68.match(line, scheme.end())
            at = token68.end() if token68 else scheme.end()
        else:
            at = _after(_JUNK, line, at)
        at = _after(_GAP, line, at)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _after(pattern: re.Pattern[str], line: str, at: int) -> int:
    match = pattern.match(line, at)
    return match.end() if match else at


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _ESCAPE.sub(r"\1", value[1:-1])
    return value.strip('"')


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
