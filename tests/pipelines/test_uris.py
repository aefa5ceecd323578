from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import storage
from pipelines.errors import InputError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("s3://bucket/a/b.png", "s3://bucket/a/b.png"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a b/100%25#1", "s3://bucket/a b/100%25#1"),
        ("file:///a b/%41", "file:///a b/%41"),
        ("file:///", "file:///"),
        ("/data/../x//y/", "file:///x/y"),
    ],
)
def test_allowed_forms_become_canonical_and_stay_so(text: str, canonical: str) -> None:
    assert storage.parse_uri(text) == canonical
    assert storage.parse_uri(canonical) == canonical


def test_relative_paths_and_home_become_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.parse_uri("~/images") == "file:///home/somebody/images"
    assert storage.parse_uri("../images") == f"file://{Path.cwd().parent}/images"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "gs://bucket/key",
        "S3://bucket/key",
        "s3:/bucket/key",
        "s3://",
        "s3:///key",
        "s3://bucket/a//b",
        "s3://bucket/../other",
        "s3://bucket/./a",
        "file://host/path",
        "file://relative",
        "file:///a/../etc",
        "/tmp/a\0b",
        "s3://bucket/a\nb",
    ],
)
def test_other_forms_are_refused_with_the_text_and_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError, match="allowed are s3://bucket/key") as caught:
        storage.parse_uri(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["s3://me:{}@bucket/key", "s3://{}@b/k", "http://h/k?sign={}"])
def test_a_refused_uri_is_shown_without_what_may_be_a_secret(text: str) -> None:
    with pytest.raises(InputError, match=r"\*\*\*.*allowed are s3://bucket/key") as caught:
        storage.parse_uri(text.format("canary"))
    assert "canary" not in str(caught.value)


def test_a_refused_uri_makes_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        for text in (f"http://{host}/x", f"s3://bucket/key?endpoint_override={host}&scheme=http"):
            with pytest.raises(InputError):
                storage.parse_uri(text)
        with pytest.raises(TimeoutError):
            listener.accept()


part = st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(
    lambda text: text not in {".", ".."}
)


@given(st.lists(part, min_size=1), st.sampled_from(["s3://bucket", "s3://b-1/x", "file:///a/b"]))
def test_relative_undoes_join(parts: list[str], root: str) -> None:
    assert storage.relative(storage.join(root, *parts), root) == "/".join(parts)


def test_relative_refuses_a_neighbour_with_the_same_beginning() -> None:
    with pytest.raises(InputError, match="does not lie below"):
        storage.relative("s3://bucket/data-2/x", "s3://bucket/data")
