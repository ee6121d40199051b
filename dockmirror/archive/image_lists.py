"""Names of images in files of other programs: plain lists, lock files, and YAML.

YAML is that of Kubernetes manifests, of rendered Helm charts and of compose files: every key ``image`` with a
text names an image.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml  # type: ignore[import-untyped, unused-ignore]
from attrs import frozen

from ..oci.digest import Digest
from ..oci.errors import DigestInvalid

_IMAGE_KEY = "image"
_TEXT = "tag:yaml.org,2002:str"


class ImageListInvalid(ValueError):
    """A file names images in a way that cannot be read; the message says where."""


@frozen
class ListedName:
    """An image as a file names it.

    :ivar digest: of a lock file, the digest that the tag is.
    """

    name: str
    digest: Digest | None = None


def read_image_list(text: str) -> list[ListedName]:
    """Return the images that a file names, without duplicates, in its order.

    :raises ImageListInvalid: when it is neither a list, nor a lock file, nor YAML that names images.
    """
    rows = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    if all(len(words) == 1 and not words[0].endswith(":") and words != ["---"] for words in rows):
        found = [ListedName(words[0]) for words in rows]
    elif all(_is_locked(words) for words in rows):
        found = [ListedName(words[0], Digest.parse(words[1])) for words in rows]
    else:
        found = [ListedName(_check_name(each)) for each in _read_yaml(text)]
    if not found:
        raise ImageListInvalid("it names no images")
    return list(dict.fromkeys(found))


def _is_locked(words: list[str]) -> bool:
    try:
        return len(words) == 4 and bool(Digest.parse(words[1]))
    except DigestInvalid:
        return False


def _read_yaml(text: str) -> Iterator[str]:
    try:
        for document in yaml.compose_all(text, yaml.SafeLoader):
            yield from _find_images(document)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ImageListInvalid(f"{where}it is neither a list of images nor YAML") from None


def _find_images(node: yaml.Node) -> Iterator[str]:
    """Yield the images in a document; its other values, such as dates, need not be valid."""
    match node:
        case yaml.MappingNode():
            for key, inner in node.value:
                if key.value == _IMAGE_KEY and isinstance(inner, yaml.ScalarNode) and inner.tag == _TEXT:
                    yield inner.value
                else:
                    yield from _find_images(inner)
        case yaml.SequenceNode():
            for inner in node.value:
                yield from _find_images(inner)


def _check_name(name: str) -> str:
    if "$" in name or "{{" in name:
        raise ImageListInvalid(
            f"{name} has a variable: give what 'docker compose config' or 'helm template' prints"
        )
    return name
