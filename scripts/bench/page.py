"""What the benchmarks write into the pages of docs/."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def put(page: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- begin: MARK -->` and `<!-- end: MARK -->`."""
    begin, end = f"<!-- begin: {mark} -->\n", f"\n<!-- end: {mark} -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + text + end + rest.split(end)[1])


def processor() -> str:
    """The CPU's name; where the system does not say, its architecture."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return name[1] if name else platform.machine()
