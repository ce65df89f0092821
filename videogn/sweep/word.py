"""Values as words of a command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Texts that Hydra reads as a number, a truth value or null where no quotes are around them.
_OTHER = re.compile(r"null|true|false|[+-]?(inf|nan|(\d[\d_]*\.?|(\d[\d_]*)?\.\d[\d_]*)(e[+-]?\d[\d_]*)?)", re.IGNORECASE)


def word_of(value: Any) -> str:
    """A value of a YAML file as it stands on a command line, in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{word_of(child)}" for key, child in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(word_of, value)) + "]"
    text = str(value)
    if re.fullmatch(r"[\w./:+-]+", text, re.ASCII) and not (isinstance(value, str) and _OTHER.fullmatch(text)):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"
