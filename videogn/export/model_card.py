"""The README.md of a Hub folder: what the model is, how it was tested, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from videogn import __version__
from videogn.export.bundle import Bundle


def model_card(bundle: Bundle, architecture: str, result: Mapping[str, Any] | None) -> str:
    """Markdown behind the Hub's YAML.

    Args:
        bundle: with its proof.
        architecture: class of the network.
        result: the result.json of the run; None where it has none.
    """
    data = bundle.run["dataset"]
    clip = bundle.protocol
    head = {
        "library_name": "videogn",
        "pipeline_tag": "video-classification",
        "tags": ["video-classification", "group-normalization", architecture],
        **({"license": "other", "license_name": bundle.licence} if bundle.licence is not None else {}),
    }
    rows = result["results"] if result is not None else []
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {architecture} for {data}",
        "",
        f"Classifies videos into {len(bundle.classes)} classes; trained on {data} with videogn {__version__}.",
        "",
        "## Use",
        "",
        "    import videogn",
        "",
        '    classifier = videogn.load("this folder")',
        '    for prediction in classifier.predict(["clip.mp4"]):',
        "        print(prediction.top)",
        "",
        f"It reads {clip['clip_length']} frames, {clip['frame_stride']} apart, as RGB of {_pixels(clip)}; {_views(clip)} are "
        f"scored and averaged ({clip['aggregation']}).",
        "",
        "## Result",
        "",
        *(_table(rows, result["split"]) if result is not None else ["Not tested yet."]),
        "",
        "## Data",
        "",
        f"{data}; manifest sha256 {bundle.run['manifest_sha256'] or 'unknown'}.",
        "",
        "## Licence",
        "",
        bundle.licence or "Not stated. The licence of the videos may limit the use of what was trained on them.",
        "",
        "## Proof",
        "",
        f"Loaded anew, the weights give the scores of the training's own network on {bundle.proof['num_clips']} real clips "
        f"within {bundle.proof['largest_relative_difference']:.2g} of the largest score; training {bundle.run['config_hash']}, "
        f"epoch {bundle.run['epoch'] + 1}.",
        "",
    ]
    return "\n".join(lines)


def _pixels(clip: Mapping[str, Any]) -> str:
    return f"{clip['crop_size']} x {clip['crop_size']} pixels cut from the frame at short side {clip['short_side']}"


def _views(clip: Mapping[str, Any]) -> str:
    number = "all" if clip["num_clips"] is None else clip["num_clips"]
    return f"{number} clips of a video, {clip['crops']} crops each" if clip["crops"] > 1 else f"{number} clips of a video"


def _table(results: Any, split: str) -> list[str]:
    rows = ["| protocol | split | top-1 | 95% interval | top-5 |", "|---|---|---|---|---|"]
    for entry in results:
        low, high = entry["intervals_95"]["top1"]
        metrics = entry["metrics"]
        rows.append(f"| {entry['name']} | {split} | {metrics['top1']:.1%} | {low:.1%} to {high:.1%} | {metrics['top5']:.1%} |")
    return rows
