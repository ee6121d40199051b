"""Types of settings: each validates a value and normalizes its spelling."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from pathlib import Path, PosixPath
from stat import S_ISREG
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from ..oci.errors import NameInvalid
from ..oci.manifest import Platform
from ..oci.pull_rule import VersionRange, has_wildcards
from ..oci.request import Repository
from ..system.networks import parse_networks
from ..system.posix import find_group
from ..system.times import check_cron
from .notation import Seconds, is_short_endpoint

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_PORT = r"[1-9][0-9]{0,3}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5])))"
_NETLOC = re.compile(rf"(?:{_HOST.pattern}|\[[0-9A-Fa-f:.]+\])(?::(?:{_PORT}))?")
_TAGS_RULE = r"[a-z0-9._/*?-]+(:[A-Za-z0-9._*?-]+)?"
_DIGEST = re.compile(r"sha(256|384|512):[0-9a-f]+")
_BUCKET = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._=+-]+)*/?")


class SettingsFile(PosixPath):
    """A file that is read once for each reading of the settings, whatever becomes of it meanwhile.

    Settings that another process has validated come with the contents that it has read, in the validation's
    context, by path.

    :ivar content: None if it was not read.
    """

    content: bytes | None = None

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(cls._from_path, handler.generate_schema(Path))

    @classmethod
    def _from_path(cls, path: Path, info: ValidationInfo) -> SettingsFile:
        if isinstance(path, cls):
            return path
        file = cls(path)
        file.content = (info.context or {}).get(str(path))
        return file

    def read_once(self, read: Callable[[Path], bytes] = Path.read_bytes) -> bytes:
        """Return the content; only the first call reads it."""
        if self.content is None:
            self.content = read(self)
        return self.content


def _match(pattern: str, expected: str) -> AfterValidator:
    """Return a validator of texts that match a pattern from beginning to end."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _check_host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("expected a host name, without scheme, port and path")
    return text.lower().rstrip(".")


def _check_origin(text: str, expected: str = "without a path") -> str:
    parts = urlsplit(text)
    if parts.username is not None:
        raise ValueError("expected an address without a username and a password")
    rest = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not _NETLOC.fullmatch(parts.netloc) or rest:
        raise ValueError(f"expected an address such as https://registry.example.com, {expected}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _check_upstream_url(text: str) -> str:
    parts = urlsplit(text)
    prefix = parts.path.strip("/")
    if prefix == "v2":
        raise ValueError("expected an address without /v2: it is added to each request")
    origin = _check_origin(parts._replace(path="").geturl(), "with or without a path")
    return f"{origin}/{_check_repository(prefix)}" if prefix else origin


def _check_https_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        raise ValueError("expected an address such as https://acme-v02.api.letsencrypt.org/directory")
    return text


def _check_gate_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.username is not None:
        raise ValueError("expected an address without a username and a password; use 'secret_file'")
    if parts.scheme not in ("http", "https") or not _NETLOC.fullmatch(parts.netloc) or parts.fragment:
        raise ValueError("expected an address such as https://policy.example.com/verdict")
    return text


def _check_repository_pattern(text: str) -> str:
    try:
        Repository.parse(re.sub(r"[*?]+", "a", text))  # a pattern has no other characters than a name
    except NameInvalid:
        raise ValueError(
            'expected a repository such as "library/nginx", or a pattern such as "team/*"'
        ) from None
    return text


def _check_image_pattern(text: str) -> str:
    """Reject a pattern that matches no image, since it lacks a part of each image's name."""
    name = re.split(r"[:@]", text.rpartition("/")[2])[0]
    registry, slash, repository = text.partition("/")
    if not slash and "**" not in name:
        meant = "" if "." in name or has_wildcards(name) else f"; is 'docker.io/library/{text}' meant?"
        raise ValueError(f'expected a registry and a repository, such as "docker.io/library/nginx"{meant}')
    if registry == "docker.io" and "/" not in repository and "**" not in name:
        raise ValueError(
            "expected a repository of two components or more, as all have at docker.io; is"
            f" 'docker.io/library/{repository}' meant?"
        )
    return text


def _check_exception_pattern(text: str) -> str:
    return text if _DIGEST.fullmatch(text) else _check_image_pattern(text)


def _check_version_range(text: str) -> str:
    VersionRange.parse(text)
    return text


def _parse_platform(value: object) -> Platform:
    return value if isinstance(value, Platform) else Platform.parse(str(value))


def _check_bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise ValueError("expected the address of a bucket, such as s3://bucket or s3://bucket/prefix")
    return text.rstrip("/")


def _as_tuple(value: object) -> object:
    return (_check_upstream_url(value),) if isinstance(value, str) else value


def _check_pattern(text: str) -> str:
    if "{name}" not in text or not _HOST.fullmatch(text.replace("{name}", "a").replace("{domain}", "b")):
        raise ValueError('expected a host name with {name} in it, such as "{name}.{domain}"')
    return text


def _check_network(text: str) -> str:
    try:
        list(parse_networks([text]))
        return text
    except ValueError:
        network = _enclosing_network(text)
        hint = f"; {text} lies in {network}" if network else ""
        raise ValueError(
            f'expected a network such as 192.168.0.0/16, or "private", or "public"{hint}'
        ) from None


def _enclosing_network(text: str) -> str | None:
    """Return the network of an address that was written with a prefix length, or None."""
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        return None


def check_file(file: SettingsFile, info: ValidationInfo) -> SettingsFile:
    """Check that there is a file, unless it was read, or another process has checked it."""
    if file.content is not None or info.context is not None:
        return file
    try:
        status = file.stat()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if not S_ISREG(status.st_mode):
        raise ValueError(f"{file} is not a file")
    return file


def _check_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("expected an address such as 192.0.2.1") from None


def _check_username(text: str) -> str:
    if not text or ":" in text or not text.isprintable():
        raise ValueError("expected a username without a colon")
    return text


def _apply_to_all_tags(value: object) -> object:
    """Turn a plain number into one that applies to every tag."""
    return value if isinstance(value, dict) else {"**": value}


def _check_repository(text: str) -> str:
    try:
        return str(Repository.parse(text))
    except NameInvalid as error:
        raise ValueError(f"expected the first components of a repository's name: {error}") from None


def _check_proxy(text: str) -> str:
    return text if text == "unix" else _check_network(text)


def _check_endpoint(text: str) -> str:
    if not is_short_endpoint(text) and not re.match(r"(?!localhost:)[a-z][a-z0-9]*:", text):
        raise ValueError(
            "expected a port such as 8080, an address with a port such as 127.0.0.1:8080, or an endpoint such"
            ' as "unix:/run/dockmirror.sock"'
        )
    return text


def _check_operations(text: str) -> str:
    """Accept "none" for an empty text, which a command line cannot tell from an option that is not given."""
    return "" if text in ("", "none") else _check_endpoint(text)


def _check_path(value: object) -> object:
    if "\0" in str(value):
        raise ValueError("expected a path without null characters")
    return value


def _check_group(name: str) -> str:
    find_group(name)
    return name


def _check_directory(value: object) -> object:
    if value == "":
        raise ValueError("expected a directory")
    return _check_path(value)


def parse_off(value: object) -> object:
    """Turn ``false``, which is a word in the environment, into None."""
    return None if value is False or value == "false" else value


def suggest(word: str, words: Iterable[str]) -> str:
    """Return a question that names the most similar word, or nothing."""
    by_lower = {each.lower(): each for each in words}
    like = get_close_matches(word.lower(), by_lower, 1)
    return f"; is {by_lower[like[0]]!r} meant?" if like else ""


def _as_text(value: object) -> object:
    """Turn a port that is written as a number into text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _split_endpoints(value: Any) -> Any:
    value = split_words(_as_text(value))
    return [_as_text(each) for each in value] if isinstance(value, list) else value


def split_words(value: Any) -> Any:
    """Split a text, as the environment gives it, into a list of words."""
    return value.split() if isinstance(value, str) else value


Host = Annotated[str, AfterValidator(_check_host)]
RegistryName = Annotated[
    str,
    _match(
        rf"(?:[A-Za-z0-9][A-Za-z0-9._-]*(?::(?:{_PORT}))?)?",
        "the first part of image names, such as ghcr.io or registry.lan:5000",
    ),
]
RegistryNames = Annotated[tuple[RegistryName, ...], BeforeValidator(split_words)]
File = Annotated[SettingsFile, AfterValidator(check_file)]
Email = Annotated[str, _match(r"[^@\s,:;?]+@[^@\s,:;?]+", "an e-mail address such as you@example.com")]
Contact = Annotated[
    str,
    _match(r"(https?://|mailto:)[!-~]+", 'an address such as "https://example.com/limits"'),
]
HttpsUrl = Annotated[str, AfterValidator(_check_https_url)]
Label = Annotated[
    str,
    _match(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", "a label of a host name: lower-case letters, digits and '-'"),
]
BucketAddress = Annotated[str, AfterValidator(_check_bucket)]
Origin = Annotated[str, AfterValidator(_check_origin)]
Origins = Annotated[tuple[Origin, ...], BeforeValidator(split_words)]
UpstreamUrl = Annotated[str, AfterValidator(_check_upstream_url)]
UpstreamUrls = Annotated[tuple[UpstreamUrl, ...], Field(min_length=1), BeforeValidator(_as_tuple)]
NetworkName = Annotated[str, AfterValidator(_check_network)]
Networks = Annotated[tuple[NetworkName, ...], BeforeValidator(split_words)]
Proxies = Annotated[tuple[Annotated[str, AfterValidator(_check_proxy)], ...], BeforeValidator(split_words)]
Endpoints = Annotated[
    tuple[Annotated[str, AfterValidator(_check_endpoint)], ...], BeforeValidator(_split_endpoints)
]
NewFile = Annotated[SettingsFile, BeforeValidator(_check_path)]
Directory = Annotated[Path, BeforeValidator(_check_directory)]
Group = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_group)]
Addresses = Annotated[
    tuple[Annotated[str, AfterValidator(_check_address)], ...], BeforeValidator(split_words)
]
Rule = Annotated[
    str,
    _match(
        rf"{_TAGS_RULE}|[a-z0-9._/*?-]+@[a-z0-9+._:*?-]+",
        'a pattern such as "library/*", "library/nginx:1.*" or "team/**@sha256:*"',
    ),
]
_IMAGE_PATTERN = _match(
    r"[A-Za-z0-9*?][A-Za-z0-9._/*?:-]*(@[a-z0-9+._:*?-]+)?",
    'a pattern such as "docker.io/library/*", "ghcr.io/team/app:1.*" or "**"',
)
ImagePattern = Annotated[str, _IMAGE_PATTERN, AfterValidator(_check_image_pattern)]
ExceptionPattern = Annotated[str, _IMAGE_PATTERN, AfterValidator(_check_exception_pattern)]
Rules = Annotated[tuple[Rule, ...], BeforeValidator(split_words)]
TagsRule = Annotated[
    str, _match(_TAGS_RULE, 'a pattern of tags such as "library/*:latest", "library/*" or "**"')
]
TagTtl = Annotated[
    dict[TagsRule, Seconds],
    BeforeValidator(_apply_to_all_tags),
]
RepositoryPatterns = Annotated[
    tuple[Annotated[str, AfterValidator(_check_repository_pattern)], ...],
    Field(min_length=1),
    BeforeValidator(split_words),
]
TagPatterns = Annotated[
    tuple[Annotated[str, _match(r"[A-Za-z0-9._*?-]+", 'a pattern of tags such as "1.27-*"')], ...],
    BeforeValidator(split_words),
]
CronText = Annotated[str, AfterValidator(check_cron)]
VersionRangeText = Annotated[str, AfterValidator(_check_version_range)]
GateUrl = Annotated[str, AfterValidator(_check_gate_url)]
PlatformName = Annotated[Platform, PlainValidator(_parse_platform), PlainSerializer(str)]
Platforms = Annotated[tuple[PlatformName, ...], BeforeValidator(split_words)]
Prefix = Annotated[str, AfterValidator(_check_repository)]
Names = Annotated[tuple[Host, ...], BeforeValidator(split_words)]
Username = Annotated[str, AfterValidator(_check_username)]
Program = Annotated[
    str, _match(r"[A-Za-z0-9._-]+|/[^\0]*[^\0/]", 'a name such as "ecr-login", or the path of a program')
]
HostPattern = Annotated[str, AfterValidator(_check_pattern)]
OperationsEndpoint = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_operations)]
