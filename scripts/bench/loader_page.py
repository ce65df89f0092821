"""The tables of docs/speed.md, from the last result of loader.py, and the calculator.

python scripts/bench/loader_page.py              # the page anew
python scripts/bench/loader_page.py --rate 120   # cores that a device needs which trains 120 clips a second
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "loader.json"
PAGE = Path(__file__).parents[2] / "docs" / "speed.md"
BEGIN, END = "<!-- begin: scripts/bench/loader.py -->", "<!-- end -->"
PEER = "pytorchvideo"


def page(result: dict[str, Any]) -> str:
    """The tables of the docs."""
    rates = clip_rates(result)
    to_raw, to_prepared = result["ratios_to_pytorchvideo_raw"], result["ratios_to_pytorchvideo_prepared"]
    decoded = result["frames_decoded_a_clip"]
    lines = [
        f"Measured on {result['date']} by `{result['command']}`: {result['versions']}.",
        f"The files: {', '.join(f'{count} of {video}' for video, count in Counter(result['videos']).items())}.",
        "",
        "| files | reader | clips/s | to pytorchvideo, raw files | to pytorchvideo, same files |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, rate in rates.items():
        kind, reader = name.split()
        same = to_raw[name] if kind == "raw" else to_prepared[name]
        lines.append(f"| {kind} | {reader} | {rate:.2f} | {to_raw[name]:.2f} | {same:.2f} |")
    lines += [
        "",
        "| files | frames of a clip, from the keyframe to the last that is wanted | decoded by PyAV here | by pytorchvideo |",
        "| --- | ---: | ---: | ---: |",
    ]
    for kind, found in decoded.items():
        lines.append(f"| {kind} | {found['least']:.1f} | {found['pyav']:.1f} | {found[PEER]:.1f} |")
    lines += [
        "",
        "| files | ten clips of a video, in times of one decode of the file | frames decoded with PyAV, of those in the files |",
        "| --- | --- | ---: |",
    ]
    for kind, found in result["ten_clips"].items():
        times = ", ".join(
            f"{name} {ratio:.2f} (at most {found['largest'][name]:.2f})"
            for name, ratio in found["time_of_a_whole_decode"].items()
        )
        lines.append(f"| {kind} | {times} | {found['frames_decoded_pyav']} of {found['frames_of_the_files']} |")
    lines += [
        "",
        "| through a DataLoader | 1 worker, clips/s | 2 workers, clips/s | ratio | private memory of a worker |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, found in result["workers"].items():
        one, two = found["clips_per_second"]
        lines.append(f"| {name} | {one:.2f} | {two:.2f} | {found['scaling']:.2f} | {found['private_megabytes']:.0f} MB |")
    return "\n".join(lines)


def clip_rates(result: dict[str, Any]) -> dict[str, float]:
    """Clips a second on a core, by files and reader."""
    return {name: statistics.median(found) for name, found in result["rates"].items()}


def write_page() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = page(json.loads(RESULT.read_text(encoding="utf-8")))
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, help="clips a second that the device trains")
    rate = parser.parse_args().rate
    if rate is None:
        write_page()
        return
    for name, one in clip_rates(json.loads(RESULT.read_text(encoding="utf-8"))).items():
        print(f"{name:24} {math.ceil(rate / one):5} cores")


if __name__ == "__main__":
    main()
