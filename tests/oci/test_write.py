"""Write requests, parsed from paths and written again."""

from __future__ import annotations

import pytest

from dockmirror.oci.errors import (
    BlobUploadInvalid,
    DigestInvalid,
    NameInvalid,
    RegistryError,
    TagInvalid,
)
from dockmirror.oci.request import Repository, Tag
from dockmirror.oci.write import (
    UploadSession,
    UploadTarget,
    Write,
    allowed_methods,
    is_upload_path,
    parse_write,
)

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
UPLOADS = b"/v2/a/b/blobs/uploads/"
UPLOAD = b"/v2/a/b/blobs/uploads/x.y-_"
BLOB = f"/v2/a/b/blobs/{DIGEST}".encode()


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (UPLOADS, "POST"),
        (UPLOADS[:-1], "POST"),
        (b"/v2/x/blobs/blobs/uploads/", "POST"),
        (UPLOAD, "GET HEAD PATCH PUT DELETE"),
        (b"/v2/a/b/manifests/1", "GET HEAD PUT DELETE"),
        (b"/v2/a/b/manifests/" + DIGEST.encode(), "GET HEAD PUT DELETE"),
        (BLOB, "GET HEAD DELETE"),
        (b"/v2/a/b/tags/list", "GET HEAD"),
        (b"/v2/", "GET HEAD"),
        (b"/v2/A/blobs/uploads/", "GET HEAD"),
        (b"/elsewhere", "GET HEAD"),
        (b"/v2/a/blobs%2Fuploads/", "GET HEAD"),
    ],
)
def test_methods(path: bytes, methods: str) -> None:
    """Each path has its own; a GET of an upload asks how far it is, all others are no writes."""
    assert allowed_methods(path) == tuple(methods.split())
    for method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "TRACE"):
        writes = method in methods.split() and (method not in ("GET", "HEAD") or is_upload_path(path))
        try:
            assert parse_write(method, path, ()).method == method
            assert writes
        except RegistryError:
            assert not writes


@pytest.mark.parametrize("path", [UPLOADS, UPLOAD, BLOB, b"/v2/a/b/manifests/latest"])
def test_a_path_is_written_as_it_was_read(path: bytes) -> None:
    """A path is written as it was parsed, in its canonical form."""
    method = allowed_methods(path)[-1]
    assert parse_write(method, path, ()).path_and_query() == path.decode()
    assert parse_write(method, path.replace(b"a/b", b"%61/b"), ()).path_and_query() == path.decode()


def test_unknown_parameters_are_dropped() -> None:
    query = (("mount", DIGEST), ("from", "c"), ("ns", "docker.io"), ("x", "y"))
    write = parse_write("POST", UPLOADS, query)
    assert write.query == query[:2]
    assert write.namespace == "docker.io"
    assert write.path_and_query() == f"/v2/a/b/blobs/uploads/?mount={DIGEST.replace(':', '%3A')}&from=c"
    assert str(write.digest) == DIGEST


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ((("digest", "x"),), DigestInvalid),
        ((("mount", "sha256:0"),), DigestInvalid),
        ((("digest", ""),), DigestInvalid),
        ((("digest-algorithm", "md5"),), DigestInvalid),
        ((("from", "../x"),), NameInvalid),
        ((("from", "A"),), NameInvalid),
        ((("from", ""),), NameInvalid),
        ((("digest", DIGEST), ("digest", OTHER)), RegistryError),
        ((("mount", DIGEST), ("from", "a"), ("from", "b")), RegistryError),
        ((("mount", DIGEST), ("digest", OTHER)), RegistryError),
        ((("digest-algorithm", "sha256"), ("digest-algorithm", "sha512")), RegistryError),
    ],
)
def test_invalid_parameters_are_rejected(
    query: tuple[tuple[str, str], ...], error: type[RegistryError]
) -> None:
    """So are ambiguous ones, since the upstream might read the other value."""
    with pytest.raises(error) as refused:
        parse_write("POST", UPLOADS, query)
    assert (type(refused.value), refused.value.status) == (error, 400)


def test_tags() -> None:
    """Tags come from the path and from any number of parameters; an invalid one is rejected."""
    by_digest = b"/v2/a/b/manifests/" + DIGEST.encode()
    assert parse_write("PUT", by_digest, ()).tags == ()
    assert parse_write("PUT", by_digest, (("tag", "1"), ("tag", "2"))).tags == (Tag("1"), Tag("2"))
    assert parse_write("PUT", b"/v2/a/b/manifests/1", (("tag", "2"),)).tags == (Tag("1"), Tag("2"))
    assert parse_write("POST", UPLOADS, (("tag", "!"),)).query == ()
    with pytest.raises(TagInvalid):
        parse_write("PUT", by_digest, (("tag", "../x"),))


@pytest.mark.parametrize("text", ["0-9", "5-304", "bytes 0-9/10", "bytes 0-9/*", "bytes=0-9", "0-", "bytes"])
def test_a_part(text: str) -> None:
    """An upload's ``Content-Range`` is passed on verbatim: the registry checks it."""
    assert parse_write("PATCH", UPLOAD, (), text).content_range == text


@pytest.mark.parametrize("text", ["", "0-9, 10-19", "0-9\ufffd", "0-9 ", "0-9\n", "\u0663-9"])
def test_what_is_no_part(text: str) -> None:
    """A ``Content-Range`` of several values is rejected; it is ignored unless it is an upload's."""
    with pytest.raises(BlobUploadInvalid):
        parse_write("PATCH", UPLOAD, (), text)
    assert parse_write("PUT", b"/v2/a/b/manifests/1", (), text).content_range is None
    assert parse_write("POST", UPLOADS, (), text).content_range is None


@pytest.mark.parametrize(
    ("method", "path", "query", "scopes"),
    [
        ("PUT", b"/v2/a/b/manifests/1", (), "repository:a/b:pull,push"),
        ("POST", UPLOADS, (), "repository:a/b:pull,push"),
        ("POST", UPLOADS, (("mount", DIGEST), ("from", "c")), "repository:a/b:pull,push repository:c:pull"),
        ("DELETE", UPLOAD, (), "repository:a/b:pull,push"),
        ("DELETE", BLOB, (), "repository:a/b:delete"),
    ],
)
def test_scopes(method: str, path: bytes, query: tuple[tuple[str, str], ...], scopes: str) -> None:
    """A write needs the scope that the distribution registry asks for."""
    assert " ".join(map(str, parse_write(method, path, query).scopes)) == scopes


def test_renaming_includes_the_mount_source() -> None:
    write = Write("POST", UploadTarget(Repository("a")), (("mount", DIGEST), ("from", "b")))
    renamed = write.renamed(lambda name: Repository(f"library/{name}"))
    assert renamed.target == UploadTarget(Repository("library/a"))
    assert renamed.query == (("mount", DIGEST), ("from", "library/b"))
    upload = Write("PUT", UploadSession(Repository("a"), "x"))
    assert upload.renamed(lambda _: Repository("c")).target == UploadSession(Repository("c"), "x")
