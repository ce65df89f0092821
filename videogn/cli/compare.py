"""videogn compare"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from videogn.cli.files import FilesParser

_SHOWN = 10  # changed videos in the table; JSON has all


def run(arguments: Sequence[str]) -> int:
    parser = FilesParser(
        "compare",
        description="What the second result has over the first: the difference of top-1 with its 95% interval (a bootstrap over "
        "videos, each with both of its answers), McNemar's exact p value, and the videos that changed. Both must be results of "
        "the same videos under the same protocol.",
    )
    parser.add_argument("first", type=Path, help="a run folder of train or evaluate")
    parser.add_argument("second", type=Path, help="another")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="default: table")
    options = parser.parse_intermixed_args(arguments)

    from videogn.evaluation.compare import compare
    from videogn.evaluation.result import read_result

    first, second = read_result(options.first), read_result(options.second)
    comparisons = compare(first, second)
    names = [result.facts["dataset"]["name"] for result in (first, second)]
    if options.output == "json":
        print(json.dumps([comparison.as_dict() for comparison in comparisons], indent=2))
        return 0
    if names[0] != names[1]:
        print(f"the data set is called {names[0]} in the first and {names[1]} in the second; paths and labels are the same")
    hashes = [{entry["protocol_hash"] for entry in result.facts["results"]} for result in (first, second)]
    for place, result in (("first", first), ("second", second)):
        alone = [entry["name"] for entry in result.facts["results"] if entry["protocol_hash"] not in hashes[0] & hashes[1]]
        if alone:
            print(f"only in the {place} result: {', '.join(alone)}")
    for c in comparisons:
        low, high = c.interval_95
        print(f"{c.protocol} (hash {c.protocol_hash}), {c.num_videos} videos")
        print(f"  top-1: {c.top1[0]:.1%} and {c.top1[1]:.1%}")
        print(f"  difference: {c.difference:+.1%}, 95% interval {low:+.1%} to {high:+.1%}")
        print(f"  McNemar: {len(c.lost)} lost, {len(c.gained)} gained, p = {c.p_value:.2g}")
        for name, changes in (("lost", c.lost), ("gained", c.gained)):
            for change in changes[:_SHOWN]:
                answers = " -> ".join("no answer" if a is None else a for a in (change.first, change.second))
                print(f"  {name}: {change.path}: {answers}")
            if len(changes) > _SHOWN:
                print(f"  {name}: {len(changes) - _SHOWN} more; --output json has them all")
    return 0
