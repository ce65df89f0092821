"""videogn predict: an ordinary program, since file names must never pass through Hydra's grammar."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogn.cli.files import FilesParser, named_videos
from videogn.cli.stop import stopped_by_sigterm
from videogn.memory_limit import memory_limited
from videogn.types import InputError

if TYPE_CHECKING:  # torch comes with it, and help does not wait for torch
    from videogn.prediction.answer import Prediction
    from videogn.prediction.classifier import Wanted
    from videogn.prediction.results import ResultFiles
    from videogn.prediction.timeline import Timeline

DESCRIPTION = """Classify video files with a run, a checkpoint or an exported model, by the protocol of its training's test.
Answers go to standard output, all else to standard error."""

EPILOG = """examples
  videogn predict RUN clip.mp4 folder/                       the five most probable labels of each
  videogn predict RUN 'clips/**/*.mp4' --top 1 --output csv  quoted: the pattern is expanded here
  find . -name '*.avi' | videogn predict RUN - --output json
  videogn predict RUN match.mp4 --timeline match.json --hop 0.5
                                                             what it shows when, a window every half second
  videogn predict RUN match.mp4 --annotate labelled.mp4      the same, written into the video
  videogn predict RUN clips/ --features features.npz         what the last linear layer reads
  videogn predict RUN clips/ --explain why/                  where and when the answer was seen
  videogn predict RUN/export/model.onnx clip.mp4 -- -x.mp4   a name that starts with a dash goes behind --

exit status: 0 done; 1 some file could not be read (the others are answered, the bad ones listed on standard error),
or out of memory; 2 bad input, or no file could be read. docs/predict.md says what is in each file."""


def run(arguments: Sequence[str]) -> int:
    options = _parser().parse_intermixed_args(arguments)
    with stopped_by_sigterm("what was answered stands; files that were not finished are removed"):
        return _predict(options)


def _predict(options: argparse.Namespace) -> int:
    if options.top < 1:
        raise InputError(f"predict: --top {options.top}: give 1 or more")
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"predict: --batch-size {options.batch_size}: give 1 or more")
    if options.hop is not None and options.timeline is None and options.annotate is None:
        raise InputError("predict: --hop: it is of --timeline and --annotate; give one of them")
    if options.layer is not None and options.explain is None:
        raise InputError("predict: --layer: it is of --explain; give that too")
    videos = named_videos("predict", options.videos)

    from videogn.prediction.load import graph_format
    from videogn.prediction.results import Places, ResultFiles
    from videogn.prediction.windows import check_hop

    check_hop(options.hop)
    places = Places(options.timeline, options.features, options.annotate, options.explain)
    files = ResultFiles(places, videos, options.model)
    # A graph asks for what it likes.
    with nullcontext() if graph_format(Path(options.model)) is None else memory_limited():
        return _answered(options, videos, places.wanted(options.hop, options.top), files)


def _answered(options: argparse.Namespace, videos: Sequence[str], wanted: Wanted, files: ResultFiles) -> int:
    """Every video in turn; returns the exit status."""
    from videogn.prediction.load import load
    from videogn.prediction.progress import PredictionProgress
    from videogn.training.allocator import keep_memory

    classifier = load(options.model, options.device, options.batch_size, options.trust)
    if classifier.scorer.device.type == "cpu":
        keep_memory()
    files.check_model(classifier, options.layer)

    answers = _Answers(options.output, options.timeline is not None)
    failures: list[tuple[str, str]] = []
    num_answered = 0
    with PredictionProgress(len(videos)) as progress:
        for outcome in classifier.outcomes(videos, wanted, progress.share):
            with progress.hidden():
                answers.add(classifier.prediction(outcome, options.top), outcome.timeline)
            num_answered += outcome.error is None
            error = files.add(classifier, outcome, options.layer)
            if error is not None:
                failures.append((outcome.path, error))
            progress.advance()
    answers.finish()
    if not num_answered:
        path, error = failures[0]
        others = f"none of the {len(videos)} files could be read, beginning with " if len(videos) > 1 else ""
        raise InputError(f"predict: {others}{path}: {error}")
    files.finish()
    if failures:
        print(f"videogn: {len(failures)} of {len(videos)} files could not be read:", file=sys.stderr)
        for path, error in failures:
            print(f"  {_in_one_line(path)}: {_in_one_line(error)}", file=sys.stderr)
    return 1 if failures else 0


class _Answers:
    """Prints them: a table or CSV row by row, JSON whole at the end."""

    def __init__(self, form: str, has_segments: bool) -> None:
        self._form, self._has_segments = form, has_segments
        self._entries: list[dict[str, Any]] = []
        self._csv = csv.writer(sys.stdout, lineterminator="\n")
        if form == "csv":
            self._csv.writerow(["path", "rank", "label", "probability", "error"])

    def add(self, prediction: Prediction, timeline: Timeline | None) -> None:
        timeline = timeline if self._has_segments else None
        if self._form == "json":
            self._entries.append(prediction.as_dict())
            if self._has_segments:
                self._entries[-1]["segments"] = [] if timeline is None else [s._asdict() for s in timeline.segments]
        elif self._form == "csv":
            if prediction.error is not None:
                self._csv.writerow([prediction.path, "", "", "", prediction.error])
            self._csv.writerows([prediction.path, rank, *answer, ""] for rank, answer in enumerate(prediction.top, 1))
        else:
            print(prediction.path)
            if prediction.error is not None:
                print(f"  error: {prediction.error}")
            for label, probability in prediction.top:
                print(f"  {probability:7.2%}  {label}")
            for segment in () if timeline is None else timeline.segments:
                times = f"{_clock(segment.start_seconds)} - {_clock(segment.end_seconds)}"
                print(f"  {times}  {segment.probability:7.2%}  {segment.label}")

    def finish(self) -> None:
        if self._form == "json":
            print(json.dumps(self._entries, indent=2, ensure_ascii=False))


def _clock(seconds: float) -> str:
    """mm:ss.s; the minutes go on behind 59."""
    tenths = round(10 * seconds)
    return f"{tenths // 600:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"


def _in_one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _parser() -> FilesParser:
    parser = FilesParser("predict", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a run folder (its last.ckpt), a .ckpt, or what `videogn export` wrote")
    parser.add_argument(
        "videos",
        metavar="VIDEOS",
        nargs="+",
        help="video files; folders, searched for videos; glob patterns in quotes, ** for any folders; - for a list on standard "
        "input, one path a line",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="labels a video (default: 5)")
    parser.add_argument(
        "--output", choices=("table", "json", "csv"), default="table", help="form of the answers (default: table)"
    )
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto (CUDA where there is one, else the CPU), cpu, cuda, cuda:N or mps"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="views in one forward (default: the training's batch_size); halved where the device's memory does not take them",
    )
    parser.add_argument("--trust", action="store_true", help="open a MODEL that is a program (.pt2): you know who wrote it")
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write what each video shows when: windows over the whole video and the segments they make, as .json or .csv",
    )
    parser.add_argument(
        "--hop",
        type=float,
        metavar="SECONDS",
        help="from one window of --timeline or --annotate to the next (default: one begins where the one before would go on)",
    )
    parser.add_argument("--features", type=Path, metavar="FILE", help="write what the last linear layer reads, as .npz; no .onnx")
    parser.add_argument(
        "--annotate",
        type=Path,
        metavar="PLACE",
        help="write the video with the labels of each moment: a .mp4, .mkv or .mov, or a folder; at the average frame rate, "
        "without sound",
    )
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="DIR",
        help="write a video and a contact sheet of where and when the answer was seen (Grad-CAM); no .onnx",
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="of --explain, as `videogn inspect` prints it (default: the last with positions)"
    )
    return parser
