"""videogn report"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from videogn.cli.files import FilesParser
from videogn.sweep.ledger import is_sweep
from videogn.types import InputError


def run(arguments: Sequence[str]) -> int:
    parser = FilesParser(
        "report",
        description="Write the page of a run anew, or one page for several runs side by side, with each compared to the first, "
        "or that of a sweep, with its tables as Markdown and its jobs as CSV. A page needs no network and nothing beside it.",
        epilog="examples: videogn report RUN;  videogn report RUN --root /moved/videos;  videogn report RUN RUN --out page.html; "
        "videogn report runs/sweep/NAME",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder of train or evaluate; or the folder of one sweep"
    )
    parser.add_argument("--out", type=Path, help="the page of several runs; default: report.html in this folder")
    parser.add_argument(
        "--videos", type=int, default=12, metavar="N", help="of one run: show the N hardest videos; 0: none; default: 12"
    )
    parser.add_argument("--root", type=Path, help="of one run: where its videos lie now; default: where they lay in the test")
    options = parser.parse_intermixed_args(arguments)
    if options.videos < 0:
        raise InputError(f"report: --videos {options.videos}: give 0 or more")
    if is_sweep(options.runs[0]) and len(options.runs) == 1:
        if options.root is not None or options.out is not None:
            raise InputError("report: --root and --out are for runs; the report of a sweep is written into its folder")
        from videogn.cli.swept import write_sweep_report

        for path in write_sweep_report(options.runs[0]):
            print(path)
        return 0
    if len(options.runs) > 1:
        if options.root is not None:
            raise InputError("report: --root is for the page of one run; leave it out")
        from videogn.cli.page import write_comparison_page
        from videogn.prediction.output import check_file

        page = options.out or Path("report.html")
        check_file("report: --out", page, (".html",))
        if any(page.exists() and page.resolve() == (run / "report.html").resolve() for run in options.runs):
            raise InputError(f"report: --out {page}: would replace the page of that run; give another place")
        print(write_comparison_page(options.runs, page))
        return 0
    if options.out is not None:
        raise InputError("report: --out is for several runs; the page of one is report.html in its folder")
    if options.root is not None and not options.root.is_dir():
        raise InputError(f"report: --root {options.root}: no such folder; give the one that the videos lie in")

    from videogn.cli.page import write_page
    from videogn.prediction.output import check_folder

    if not (options.runs[0] / "result.json").exists() and any(options.runs[0].glob("*/result.json")):
        raise InputError(f"report: {options.runs[0]}: has runs in it, and no jobs.json; of a sweep, run its command again")
    check_folder("report:", options.runs[0])
    print(write_page(options.runs[0], options.videos, options.root))
    return 0
