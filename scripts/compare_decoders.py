"""Holds every decoder to the reference and to an independent count on real files; writes the tables of docs/decoders.md.

    python scripts/compare_decoders.py FOLDER    # a folder with facts.csv; writes bench/results/decoders.json and the page
    python scripts/compare_decoders.py           # the page anew

`facts.csv` has a row a file: path, status (ok, partial, no-video, open-fail) and frames decoded, counted once by a plain decode
from start to end. A decoder's frames, read at the first, the last and ten random places, are compared with
those of the reference, PyAV from start to end.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from datetime import date
from importlib import metadata
from pathlib import Path

import numpy as np

from videogn.decoder.decord import DecordDecoder
from videogn.decoder.pyav import PyAVDecoder
from videogn.decoder.torchcodec import TorchCodecDecoder
from videogn.types import Declined, Decoder, InputError, ShortRead, Video, VideoError

ROOT = Path(__file__).parents[1]
RESULT, PAGE = Path(__file__).parent / "bench" / "results" / "decoders.json", ROOT / "docs" / "decoders.md"
BEGIN, END = "<!-- begin: scripts/compare_decoders.py -->", "<!-- end -->"
DECODERS = {"pyav": PyAVDecoder, "decord": DecordDecoder, "torchcodec": TorchCodecDecoder}
NUM_PLACES = 10
# Why the count is not that of facts.csv.
EXPLAINED = {
    "nasa_13013.mp4": "two streams: facts.csv counts the first, 320x180; the larger is 480x270",
    "Cov_denault_proposedUS_vid14.mov": "facts.csv: does not open; the PyAV named above opens it plainly, and 136 frames decode",
}


def decoders() -> dict[str, Decoder]:
    """Those that can be imported here."""
    found = {}
    for name, make in DECODERS.items():
        try:
            found[name] = make()
        except InputError as error:
            print(error)
    return found


def recounted(video: Video) -> Video:
    """The video once it knows which of its frames decode."""
    try:
        for start in range(0, video.num_frames, 16):  # in parts: a whole video may not fit into memory
            video.frames(range(start, min(start + 16, video.num_frames)))
    except ShortRead:
        pass
    return video


def read_in_order(path: Path, num_frames: int, places: list[int]) -> np.ndarray:
    """Frames at `places` from a decode of the whole file."""
    video, kept = PyAVDecoder().open(path), {}
    recounted(video)
    for start in range(0, num_frames, 16):
        part = range(start, min(start + 16, num_frames))
        kept |= {index: frame.copy() for index, frame in zip(part, video.frames(part), strict=True) if index in places}
    video.close()
    return np.stack([kept[place] for place in places])


def agreement(decoder: Decoder, path: Path, reference: Video, places: list[int], expected: np.ndarray) -> str:
    try:
        video = recounted(decoder.open(path))
        frames = video.frames(places)
    except Declined as error:
        reason = error.reason.split("; use decoder")[0].removeprefix(f"{decoder.name} would get it wrong: ")
        return "declines: " + reason.split(" (")[0]
    except VideoError as error:
        return f"refuses: {error.reason}"
    if not np.array_equal(video.timestamps, reference.timestamps):
        return "WRONG: other timestamps"
    if np.array_equal(frames, expected):
        return "equal"
    worst = min(
        10 * np.log10(255**2 / max(np.mean((a.astype(np.float32) - b) ** 2), 1e-9)) for a, b in zip(frames, expected, strict=True)
    )
    return f"{'' if worst >= 40 else 'WRONG: '}{worst:.0f} dB"


def compare(folder: Path) -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    available = decoders()
    rows = []
    with open(folder / "facts.csv", newline="", encoding="utf-8") as facts:
        for fact in csv.DictReader(facts):
            path = folder / fact["path"]
            row = {"path": fact["path"], "facts": f"{fact['frames_decoded']}" or fact["status"]}
            try:
                reference = recounted(PyAVDecoder().open(path))
            except VideoError as error:
                row["reference"] = error.reason
                row |= {name: refusal(decoder, path) for name, decoder in available.items()}
            else:
                last = reference.num_frames - 1
                places = [0, last, *rng.integers(0, last + 1, NUM_PLACES).tolist()]
                expected = read_in_order(path, reference.num_frames, places)
                row["reference"] = f"{reference.num_frames}, {reference.width}x{reference.height}"
                row |= {name: agreement(decoder, path, reference, places, expected) for name, decoder in available.items()}
                reference.close()
            rows.append(row)
            print(row, flush=True)
    return rows


def refusal(decoder: Decoder, path: Path) -> str:
    try:
        decoder.open(path).close()
    except VideoError:
        return "refuses"
    return "WRONG: opens"


def versions() -> str:
    names = ("av", "decord", "torchcodec", "pillow")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}", platform.machine()])


def page(result: dict) -> str:
    names = [name for name in DECODERS if name in result["files"][0]]
    head = ["file", "frames in facts.csv", "reference", *names]
    lines = [
        f"Measured on {result['date']} by `{result['command']}`: {result['versions']}.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
    ]
    notes = []
    for row in result["files"]:
        name = Path(row["path"]).name
        note = ""
        if row["facts"] != row["reference"].split(",")[0] and name in EXPLAINED:
            notes.append(EXPLAINED[name])
            note = f" [{len(notes)}]"
        lines.append(
            "| " + " | ".join([f"`{name}`", row["facts"] + note, row["reference"], *(row[name] for name in names)]) + " |"
        )
    lines += ["", *(f"[{place}] {note}." for place, note in enumerate(notes, 1))]
    right = {name: sum(row[name] == "equal" or row[name][0].isdigit() for row in result["files"]) for name in names}
    declines = {name: sum(row[name].startswith("declines") for row in result["files"]) for name in names}
    wrong = {name: sum("WRONG" in row[name] for row in result["files"]) for name in names}
    lines += [""] if notes else []
    lines += [f"- {name}: right on {right[name]}, declines {declines[name]}, wrong on {wrong[name]}" for name in names]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="without it the page is written anew from the last result")
    folder = parser.parse_args().folder
    if folder is not None:
        files = compare(folder)
        result = {
            "date": date.today().isoformat(),
            "command": f"python scripts/compare_decoders.py {folder.name}",
            "versions": versions(),
            "files": files,
        }
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    table = page(json.loads(RESULT.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
