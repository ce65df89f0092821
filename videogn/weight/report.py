"""What became of every layer of a model, and of every tensor of a file, when weights were loaded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["loaded", "renamed", "inflated", "skipped"]


@dataclass(frozen=True)
class Entry:
    """One tensor of the model.

    Attributes:
        name: of the model's state_dict.
        outcome: "loaded" under its own name, "renamed" from another, "inflated" from fewer frames, or "skipped".
        source: the name in the file, "" where there is none.
        reason: why it was skipped, or what was done to it.
        size: number of values.
    """

    name: str
    outcome: Outcome
    source: str
    reason: str
    size: int


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        origin: the file, and its layout.
        entries: one for each tensor of the model.
        unused: (name in the file, why) of its tensors that went nowhere.
        notes: what else should be known.
    """

    origin: str
    entries: Sequence[Entry]
    unused: Sequence[tuple[str, str]]
    notes: Sequence[str]

    @property
    def backbone_share(self) -> float:
        """Share of the values before the head that were taken over, of the parameters alone."""
        backbone = [e for e in self.entries if not e.name.startswith("head.") and not _is_statistic(e.name)]
        taken = sum(e.size for e in backbone if e.outcome != "skipped")
        return taken / max(sum(e.size for e in backbone), 1)

    def layers(self) -> list[tuple[str, str, str, str]]:
        """(layer, outcome, name in the file, why) for each layer of the model; "partly" where its tensors differ."""
        layers: dict[str, list[Entry]] = {}
        for entry in self.entries:
            layers.setdefault(entry.name.rpartition(".")[0], []).append(entry)
        rows = []
        for layer, entries in layers.items():
            outcomes = {entry.outcome for entry in entries}
            outcome = outcomes.pop() if len(outcomes) == 1 else "partly"
            sources = sorted({entry.source.rpartition(".")[0] or entry.source for entry in entries if entry.source})
            rows.append((layer, outcome, ", ".join(sources), "; ".join(dict.fromkeys(e.reason for e in entries if e.reason))))
        return rows

    def total(self) -> str:
        """One line: layers by outcome, and the share of the backbone."""
        counts = Counter(outcome for _, outcome, _, _ in self.layers())
        parts = [f"{counts[key]} {key}" for key in ("loaded", "renamed", "inflated", "partly", "skipped") if counts[key]]
        reasons = Counter(reason for _, reason in self.unused)
        unused = "; ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        share = math.floor(self.backbone_share * 1000) / 10  # 100% means all
        backbone = f"{share:.1f}% of the backbone's parameters"
        line = f"{self.origin}: {sum(counts.values())} layers: {', '.join(parts)}; {backbone}"
        return line + (f"; not used of the file: {unused}" if unused else "")

    def __str__(self) -> str:
        rows = [("layer", "outcome", "in the file", "why"), *self.layers()]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows
        ]
        return "\n".join([*lines, *self.notes, self.total()])


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
