"""Images as users name them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.app.image_names import parse_image_name
from dockmirror.config.load import load
from dockmirror.oci.digest import Digest
from dockmirror.oci.reference import Repository, parse_reference

DIGEST = str(Digest.of(b""))
SETTINGS = load({}, {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        (f"ghcr.io/o/r@{DIGEST}", f"ghcr.io/o/r@{DIGEST}"),
        (f"ghcr.io/o/r:1@{DIGEST}", f"ghcr.io/o/r@{DIGEST}"),
        ("registry.example.com:5000/a/b:c", "registry.example.com_5000/a/b:c"),
        ("localhost/a", "localhost/a:latest"),
    ],
)
def test_names(text: str, name: str) -> None:
    """Short ones are completed as docker does, registries have the store's names."""
    assert str(parse_image_name(text, SETTINGS)) == name


@pytest.mark.parametrize(
    "text",
    ["", "Nginx", "nginx:", "a b", "ghcr.io/", "nginx@sha256:1", "../../x", "a:/etc/x", "A.b/c", "a..b/c"],
)
def test_none(text: str) -> None:
    """Is told so; what ends with a colon is none."""
    with pytest.raises(ValueError, match="invalid"):
        parse_image_name(text, SETTINGS)


@given(st.text() | st.text("aA./:@-_%0\\", max_size=20))
def test_no_name_is_too_odd(text: str) -> None:
    """It is none, or what it means is one by the grammar of names."""
    try:
        name = parse_image_name(text, SETTINGS)
    except ValueError:
        return
    assert Repository.parse(str(name.repository)) == name.repository
    assert parse_reference(str(name.reference)) == name.reference
