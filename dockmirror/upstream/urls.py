"""URLs of an upstream: parsed without rewriting, compared by origin, resolved from ``Location``."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from hyperlink import URL

_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse_origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port in normal form (RFC 6454, 4)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _DEFAULT_PORTS.get(parts.scheme)


def split_prefix(url: str) -> tuple[str, str]:
    """Return an upstream's address without its path, and the path, a prefix of repositories."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.strip("/")


def resolve_location(url: str, location: str) -> str | None:
    """Return the URL that a ``Location`` means, or None if it is invalid."""
    try:
        target = urljoin(url, location).partition("#")[0]
        parts = urlsplit(target)
        _ = parts.port
    except ValueError:
        return None
    is_address = parts.scheme in ("http", "https") and parts.hostname and parts.username is None
    is_written = location and target.isascii() and target.isprintable() and " " not in target
    return target if is_address and is_written else None


class _RawHostURL(URL):
    """A URL with an ASCII host, which hyperlink would encode as if it were an internationalized name.

    hyperlink rejects names with underscores, which containers have, and fails at IPv6 addresses.
    """

    def to_uri(self) -> URL:
        """Encode only the part behind the host."""
        named = URL.from_text(self.replace(host="name").to_text())
        return named.to_uri().replace(host=self.host.lower())


def parse_url(url: str) -> URL:
    """Parse a URL and keep its host as written.

    :raises ValueError: when it is not a URL.
    """
    parsed = URL.from_text(url)
    return _RawHostURL.from_text(url) if parsed.host.isascii() else parsed
