"""A page that needs no network: one file of templates, style, script and data, closed against what a stranger's text may hold."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from videogn.whole import whole

_SCRIPTS = ("page.js", "matrix.js")


def render(template: str, data: Mapping[str, Any], **context: Any) -> str:
    """The text of a page.

    Args:
        template: a file of this folder that extends base.html.jinja.
        data: what the page's script reads, as JSON; see `json_for_script`.
        context: what the template reads. Text is escaped; Markup is not.
    """
    environment = _environment()
    folder = Path(__file__).parent
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return environment.get_template(template).render(
        style=Markup((folder / "style.css").read_text(encoding="utf-8")),  # nosec B704 # our own file
        script=Markup(script),  # nosec B704 # our own files
        # Of scripts only this one runs: an injected one, or an onerror=, has another hash.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(json_for_script(data)),  # nosec B704 # no tag can stand in it
        **context,
    )


def write_whole(path: Path, text: str) -> Path:
    """Write a page in UTF-8, whole or not at all; a lone surrogate of a path that is no UTF-8 is written as \\udce9."""
    with whole(path) as unfinished:
        unfinished.write_bytes(encoded(text))
    return path


def encoded(text: str) -> bytes:
    """The bytes that `write_whole` writes."""
    return text.encode("utf-8", "backslashreplace")


def json_for_script(data: Any) -> str:
    """JSON that may stand inside a script element: ASCII without <, > and &; what is no finite number is null, and lone
    surrogates are spelled as `write_whole` spells them."""
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(data: Any) -> Any:
    if isinstance(data, str):
        return encoded(data).decode()
    if isinstance(data, Mapping):
        return {_plain(key): _plain(value) for key, value in data.items()}
    if isinstance(data, Sequence):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1%}"


def width(share: float) -> str:
    """Of a bar, for a style."""
    return f"{100 * min(1.0, max(0.0, 0.0 if math.isnan(share) else share)):.1f}%"


def interval(bounds: Sequence[float] | None) -> str:
    return "-" if bounds is None else f"{bounds[0]:.1%} to {bounds[1]:.1%}"


def number(value: float | None) -> str:
    """Four significant digits."""
    return "-" if value is None else f"{value:.4g}"


def count(value: int | float | None) -> str:
    """A whole number, thousands apart."""
    return "-" if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """`850 ms`, `3.4 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def size(num_bytes: float | None) -> str:
    """`3.2 MiB`, of whatever unit gives fewer than four digits."""
    if num_bytes is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(num_bytes) < 1023.5:
            return f"{num_bytes:.3g} {unit}" if num_bytes < 999.5 else f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} TiB"


def large(value: float | None) -> str:
    """`21.3 M`: three digits and a unit of a thousand, million or billion."""
    if value is None:
        return "-"
    for unit in ("", " k", " M", " G"):
        if abs(value) < 999.5:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:,.4g} T"


def _environment() -> jinja2.Environment:
    # Class and file names are a stranger's text: everything is escaped.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for form in (percent, width, interval, number, count, duration, size, large):
        environment.filters[form.__name__] = form
    return environment
