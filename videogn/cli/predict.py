"""videogn predict: an ordinary program, since file names must never pass through Hydra's grammar."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from videogn.cli.files import FilesParser
from videogn.dataset.manifest import VIDEO_SUFFIXES
from videogn.types import InputError


def run(arguments: Sequence[str]) -> int:
    parser = FilesParser(
        "predict",
        description="Classify video files with a run, a checkpoint or an exported model, by the protocol of its training's test.",
        epilog="Exit status 1: some file could not be read; the others are answered all the same. "
        "A file name that starts with a dash goes behind `--`.",
    )
    parser.add_argument("model", help="a run folder (its last.ckpt), a .ckpt or a .onnx")
    parser.add_argument("videos", nargs="+", help="video files, or folders that are searched for them")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument("--top", type=int, default=5, help="how many labels a video, default: 5")
    options = parser.parse_args(arguments)
    if options.top < 1:
        raise InputError(f"predict: --top {options.top}: give 1 or more")
    videos = list(_files(options.videos))

    from videogn.prediction.load import load_scorer

    scorer = load_scorer(options.model)
    failed = 0
    answers = []
    for prediction in scorer.predict(videos, options.top):
        failed += prediction.error is not None
        if options.output == "table":
            _print(prediction.path, prediction.top, prediction.error)
        answers.append(prediction.as_dict())
    if options.output == "json":
        print(json.dumps(answers, indent=2, ensure_ascii=False))
    if failed:
        print(f"videogn: {failed} of {len(videos)} files could not be read", file=sys.stderr)
    return 1 if failed else 0


def _files(paths: Iterable[str]) -> Iterable[str]:
    """The files named, and the video files below the folders named."""
    for path in paths:
        if not Path(path).is_dir():
            yield path
            continue
        found = sorted(str(p) for p in Path(path).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not found:
            raise InputError(f"predict: {path}: no video file in this folder ({', '.join(sorted(VIDEO_SUFFIXES))})")
        yield from found


def _print(path: str, top: Sequence[tuple[str, float]], error: str | None) -> None:
    print(path)
    if error is not None:
        print(f"  error: {error}")
    width = max((len(label) for label, _ in top), default=0)
    for label, probability in top:
        print(f"  {probability:7.2%}  {label:{width}}".rstrip())
