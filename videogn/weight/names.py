"""Names that several layouts share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

Rules = Sequence[tuple[str, str]]


def renamed(names: Iterable[str], rules: Rules) -> dict[str, str]:
    """Every name that some rule changes, after all rules in turn."""
    found = {}
    for name in names:
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new != name:
            found[name] = new
    return found


def stage_rules(pattern: str, offset: int, prefix: str = "trunk.") -> list[tuple[str, str]]:
    """`pattern` with {} for the number of a stage, for the stages whose number here is 2 to 5 and there `offset` less."""
    return [(pattern.format(stage - offset), f"{prefix}res{stage}.") for stage in range(2, 6)]


# torchvision's names of a residual block, which timm, mmaction and many others took over; the norms are bn1, gn1 or norm1.
RESNET_BLOCK: Rules = [(r"\.(?:bn|gn)(\d)\.", r".norm\1."), (r"\.downsample\.", ".shortcut.")]
RESNET: Rules = [
    (r"^conv1\.", "trunk.conv1."),
    (r"^(?:bn|gn)1\.", "trunk.norm1."),
    *stage_rules(r"^layer{}\.", 1),
    *RESNET_BLOCK,
    (r"^fc\.", "head."),
]
