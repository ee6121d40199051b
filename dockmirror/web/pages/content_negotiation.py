"""What a client would rather have, of what there is (RFC 9110, 12.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def media_type(accept: Sequence[str], default: str, *others: str) -> str:
    """The media type to answer with.

    :param accept: the lines of ``Accept``.
    :param default: for who does not care; a type that is named goes before one that a range comprises.
    """
    wanted = dict(_weighed(accept))
    named = {each: wanted[each] for each in (default, *others) if wanted.get(each)}
    return max(named, key=lambda each: named[each], default=default)


def language(accept: Sequence[str], default: str, *others: str) -> str:
    """The language to answer in: ``zh-Hans-CN`` is content with ``zh``.

    :param accept: the lines of ``Accept-Language``.
    """
    wanted: dict[str, float] = {}
    for tag, weight in _weighed(accept):
        primary = tag.partition("-")[0]
        wanted[primary] = max(weight, wanted.get(primary, 0.0))
    known = {each: wanted[each] for each in (default, *others) if wanted.get(each)}
    return max(known, key=lambda each: known[each], default=default)


def _weighed(lines: Sequence[str]) -> Iterator[tuple[str, float]]:
    for each in (each for line in lines for each in line.split(",")):
        value, *parameters = (part.strip().lower() for part in each.split(";"))
        weight = next((part.removeprefix("q=") for part in parameters if part.startswith("q=")), "1")
        try:
            yield value, min(max(float(weight), 0.0), 1.0)
        except ValueError:
            yield value, 0.0
