"""The setting ``redirect``: a switch, or tables of buckets and CDNs near clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from dockmirror.config.load import load
from dockmirror.config.settings import ConfigurationError, Settings

TABLE = '[[redirect]]\nregion = "eu"\nnetworks = ["10.1.0.0/16"]\n'


def read(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "dockmirror.toml"
    path.write_text(text)
    return load({"config": path}, {})


@pytest.mark.parametrize("text", ["", "redirect = false", "redirect = true"])
def test_a_switch_has_no_copies_near_clients(tmp_path: Path, text: str) -> None:
    settings = read(tmp_path, text)
    assert settings.redirect is ("true" in text)
    assert settings.near_buckets == ()


def test_tables_reach_the_workers_as_they_were(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        f'{TABLE}store = "s3://eu/x"\nstore_region = "eu-central-1"\n{TABLE}url = "https://cdn.example/x"\n',
    )
    assert [(each.region, each.store, each.url) for each in settings.near_buckets] == [
        ("eu", "s3://eu/x", None),
        ("eu", None, "https://cdn.example/x"),
    ]
    assert Settings.model_validate_json(settings.as_json()) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redirect = 'maybe'", 'redirect: expected true or false, not "maybe"'),
        (TABLE, "redirect.0: expected either 'store', a bucket, or 'url', the address of a CDN"),
        (f'{TABLE}store = "s3://x"\nurl = "https://x"', "redirect.0: expected either 'store'"),
        (f'{TABLE}url = "http://x"', "redirect.0.url: expected an address such as"),
        (
            f'{TABLE}url = "https://x"\nstore_region = "us-east-1"',
            "redirect.0: store_endpoint and store_region need a store that begins with s3://",
        ),
        (f'{TABLE}store = "gs://x"\nstore_region = "us"', "redirect.0: store_endpoint and store_region need"),
        (TABLE.replace('"10.1.0.0/16"', ""), "redirect.0.networks: expected at least one"),
        (f'{TABLE}storee = "s3://x"', "redirect.0.storee: there is no such setting; is 'store' meant?"),
    ],
)
def test_an_error_names_the_table_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
