"""What a run keeps of its data, and what is said where they have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogn.dataset.columns import SPLITS, Entry
from videogn.dataset.manifest import Manifest
from videogn.training.checkpoint import Checkpoint
from videogn.training.trained_data import NAME, compared, kept_data, kept_list, refuse_other_data, trained_on
from videogn.types import InputError

ENTRIES = tuple(Entry(f"a/{i}.mp4", "ab"[i % 2], f"rec {i}", SPLITS[i // 4]) for i in range(12))


def data(*entries: Entry, classes: tuple[str, ...] = ("a", "b")) -> Manifest:
    return Manifest(Path("/videos"), entries or ENTRIES, classes)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """Of a run with `data()`."""
    data().write(tmp_path / NAME)
    return of(tmp_path, data())


def of(run: Path, manifest: Manifest) -> Checkpoint:
    return Checkpoint(run / "checkpoint" / "last.ckpt", {}, manifest.classes, {}, 1, 1, manifest.sha256())


names = st.lists(st.sampled_from([*"a é,'\"\r\n\v\u2028", os.fsdecode(b"\xe9")]), min_size=1).map("".join)  # of files
entries = st.lists(st.builds(Entry, names, st.sampled_from("ab"), names, st.sampled_from(SPLITS), st.integers(0, 9)), min_size=1)


@settings(max_examples=100, deadline=None)
@given(entries)
def test_what_is_kept_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[Entry]) -> None:
    run, manifest = tmp_path_factory.mktemp("run"), data(*rows)
    manifest.write(run / NAME)
    kept = kept_data(of(run, manifest))
    assert kept is not None
    assert kept.entries == manifest.entries


@pytest.mark.parametrize(
    ("content", "sha256"),
    [
        (None, None),
        (b"", None),
        (b"path,label\na,b\n", None),
        (b'\xff\0\n"', None),
        (b"p,l,v,s,n\na,b,c,d,0\n", None),
        ("own", "0"),
    ],
    ids=["none", "empty", "short", "noise", "no_split", "of_other_data"],
)
def test_a_list_that_is_not_the_runs_is_none(checkpoint: Checkpoint, content: bytes | str | None, sha256: str | None) -> None:
    path = kept_list(checkpoint)
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    if sha256 is not None:
        checkpoint = Checkpoint(checkpoint.path, {}, ("a", "b"), {}, 1, 1, sha256)
    assert kept_data(checkpoint) is None
    warning, seen = compared(checkpoint, data(*ENTRIES[1:]), data(*ENTRIES[8:]))
    assert "manifest.csv of its run folder, which lists those, is not there" in warning
    assert seen is None
    with pytest.raises(InputError, match=r"which lists those, is not there; bring those back, or start another run"):
        refuse_other_data(checkpoint, data(*ENTRIES[1:]))


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (data(*ENTRIES, Entry("b/new.mp4", "b", "new", "val")), "12 videos then, 13 now; 'b/new.mp4' is new"),
        (data(*ENTRIES[:3], *ENTRIES[4:]), "12 videos then, 11 now; 'a/3.mp4' is gone"),
        (data(*ENTRIES[:11]), "12 videos then, 11 now; 'a/11.mp4' is gone"),
        (data(*ENTRIES[:4], ENTRIES[4]._replace(split="train"), *ENTRIES[5:]), "split of 'a/4.mp4' was val, and is train"),
        (data(ENTRIES[0]._replace(label="b"), *ENTRIES[1:]), "label of 'a/0.mp4' was a, and is b"),
        (data(ENTRIES[0]._replace(video_id="x"), *ENTRIES[1:]), "video_id of 'a/0.mp4' was rec 0, and is x"),
        (data(*reversed(ENTRIES)), "the order of the videos or the classes is another"),
        (data(classes=("b", "a")), "the order of the videos or the classes is another"),
    ],
    ids=["new", "gone", "gone_from_test", "split", "label", "video_id", "order", "classes"],
)
def test_no_run_goes_on_with_other_data(checkpoint: Checkpoint, now: Manifest, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        refuse_other_data(checkpoint, now)
    message = str(refusal.value)
    assert f"the data are not those that it was trained with: 12 videos then, {len(now)} now; " in message
    assert said in message
    remedy = f"go on with the list of the run: dataset=manifest dataset.path={kept_list(checkpoint)} dataset.root=/videos"
    gone = [entry.split for entry in ENTRIES if entry.path not in {other.path for other in now.entries}]
    if "train" in gone:
        assert "go on with the list" not in message  # it trains on what is not there
    else:
        assert remedy + (" dataset.missing=wrong" if gone else "") + ", or start another run" in message
    warning, seen = compared(checkpoint, now, data(*ENTRIES[8:]))
    assert said in warning
    assert warning.endswith("; none of the 4 videos tested was trained on")
    assert seen == 0


def test_the_same_data_and_old_runs_are_silent(checkpoint: Checkpoint) -> None:
    refuse_other_data(checkpoint, data())
    assert compared(checkpoint, data(), data(*ENTRIES[8:])) == ("", 0)
    old = Checkpoint(checkpoint.path, {}, ("a", "b"), {}, 1, 1, None)
    refuse_other_data(old, data(*ENTRIES[1:]))
    assert compared(old, data(*ENTRIES[1:]), data(*ENTRIES[8:])) == ("", None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ENTRIES), unique=True, min_size=1))
def test_tested_videos_that_were_trained_on_are_counted(tested: list[Entry]) -> None:
    expected = [entry.path for entry in tested if entry.split == "train"]
    as_test = [entry._replace(split="test") for entry in tested]
    assert trained_on(data(), data(*as_test)) == expected
    # Written anew by prepare it has another path, and the recording's id; or another id and its path.
    assert len(trained_on(data(), data(*(entry._replace(path=f"p/{entry.path}") for entry in as_test)))) == len(expected)
    assert trained_on(data(), data(*(entry._replace(video_id=entry.path) for entry in as_test))) == expected


def test_the_warning_counts_them_and_says_what_to_do(checkpoint: Checkpoint) -> None:
    moved = data(*(entry._replace(split=SPLITS[i % 3]) for i, entry in enumerate(ENTRIES)))
    warning, seen = compared(checkpoint, moved, moved.split("test"))
    assert seen == 1
    assert "1 of the 4 videos tested have the path or video_id of one that was trained on, such as 'a/2.mp4'" in warning
    assert f"dataset=manifest dataset.path={kept_list(checkpoint)} dataset.root=/videos divides as the run did" in warning
