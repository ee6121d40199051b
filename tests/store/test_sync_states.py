"""The states of rules that keep images in sync, and their pins."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockmirror.oci.manifest import Platform
from dockmirror.oci.request import Repository, Tag
from dockmirror.store import layout, sync_states
from dockmirror.store.pins import Pin
from dockmirror.store.sync_states import SyncState, merge_platforms, plan_unpins

REPOSITORY = Repository("docker.io/library/nginx")
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")


def pin(tag: str, *platforms: Platform) -> Pin:
    return Pin(REPOSITORY, Tag(tag), platforms)


def state(key: str, *pins: Pin) -> SyncState:
    return SyncState(key, f"rule {key}", pins=pins)


def test_states_are_read_as_they_were_written(tmp_path: Path) -> None:
    full = SyncState(
        "one", "docker: nginx", "paused", "later", 1.0, 2.0, 3.5, True, True, 9, 8, 1, 5, 6, (pin("1", AMD),)
    )  # fmt: skip
    for each in (full, state("two")):
        sync_states.write_state(tmp_path, each, 1.0)
    assert sync_states.read_states(tmp_path) == {"one": full, "two": state("two")}
    sync_states.delete_state(tmp_path, "one")
    assert sync_states.read_states(tmp_path) == {"two": state("two")}


def test_states_of_the_version_before_and_after_are_read(tmp_path: Path) -> None:
    """A field that is missing has its default, and an unknown one is ignored."""
    sync_states.write_state(tmp_path, state("one"), 1.0)
    path = tmp_path / layout.sync_state("one")
    values = json.loads(path.read_bytes())
    del values["matched"]
    path.write_text(json.dumps({**values, "later": 1}))
    assert sync_states.read_states(tmp_path) == {"one": state("one")}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("next_run", "soon"), ("next_run", math.nan), ("started", 1e300), ("ended", 1e17), ("matched", None),
        ("synced", math.inf), ("outcome", "skipped"), ("outcome", []),
    ],
)  # fmt: skip
def test_a_malformed_field_has_its_default(tmp_path: Path, field: str, value: object) -> None:
    """The others are kept, the pins above all: nobody else would unpin them."""
    kept = SyncState("one", "rule", message="down", fetched=3, pins=(pin("1"),))
    sync_states.write_state(tmp_path, kept, 1.0)
    path = tmp_path / layout.sync_state("one")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), field: value}))
    assert sync_states.read_states(tmp_path) == {"one": kept}


@pytest.mark.parametrize("data", ["[" * 100_000, '"key"', '{"key": "bad", "name": "n", "pins": null}'])
def test_a_malformed_state_is_left_out(tmp_path: Path, data: str) -> None:
    """A file with the name of another rule is, too: it would never be replaced."""
    sync_states.write_state(tmp_path, state("one"), 1.0)
    path = tmp_path / layout.sync_state("one")
    path.with_name("two").write_bytes(path.read_bytes())
    path.with_name("bad").write_text(data)
    assert sync_states.read_states(tmp_path) == {"one": state("one")}


def test_a_cache_keeps_its_name_among_those_of_a_bucket(tmp_path: Path) -> None:
    owner = sync_states.read_owner(tmp_path / "one", 1.0)
    assert owner == sync_states.read_owner(tmp_path / "one", 2.0)
    assert owner != sync_states.read_owner(tmp_path / "other", 1.0)


def test_no_rule_has_run_at_first(tmp_path: Path) -> None:
    assert sync_states.read_states(tmp_path) == {}
    sync_states.end_request(tmp_path)
    assert not sync_states.is_requested(tmp_path)


def test_a_request_is_made_and_ended(tmp_path: Path) -> None:
    sync_states.request_sync(tmp_path, 1.0)
    assert sync_states.is_requested(tmp_path)
    sync_states.end_request(tmp_path)
    assert not sync_states.is_requested(tmp_path)


@pytest.mark.parametrize(
    ("pins", "wanted", "others", "expected"),
    [
        (["1", "2"], ["2", "3"], [], ["1"]),
        (["1", "2"], [], ["2"], ["1"]),
        (["1"], ["1"], [], []),
        (["1"], [], ["1"], []),
        ([], ["1"], [], []),
    ],
)
def test_pins_that_no_rule_wants_are_removed(
    pins: Sequence[str], wanted: Sequence[str], others: Sequence[str], expected: Sequence[str]
) -> None:
    unpins = plan_unpins(
        state("one", *map(pin, pins)), {str(pin(each)) for each in wanted}, [state("two", *map(pin, others))]
    )
    assert unpins == [pin(each) for each in expected]


names = st.sets(st.sampled_from("abcdef"))


@given(names, names, names)
def test_nothing_else_is_unpinned(owned: set[str], wanted: set[str], others: set[str]) -> None:
    """Only what the rule itself has pinned, and all of that which is not wanted."""
    unpins = plan_unpins(
        state("one", *map(pin, owned)), {str(pin(each)) for each in wanted}, [state("two", *map(pin, others))]
    )
    assert {str(each.reference) for each in unpins} == owned - wanted - others


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((AMD,), (ARM,), (AMD, ARM)),
        ((AMD,), (AMD,), (AMD,)),
        ((), (ARM,), ()),
        ((AMD,), (), ()),
    ],
)
def test_an_image_of_two_rules_is_pinned_for_the_platforms_of_both(
    one: tuple[Platform, ...], other: tuple[Platform, ...], expected: tuple[Platform, ...]
) -> None:
    others = [state("two", pin("1", *other), pin("2"))]
    assert merge_platforms(pin("1", *one), others).platforms == expected
