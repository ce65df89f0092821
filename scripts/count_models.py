"""Count the parameters and multiply-adds of every model, and write the table of docs/models.md.

    python scripts/count_models.py

With batch norm and 400 classes, on the meta device: nothing is computed. A FLOP there is half a multiply-add.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from videogn.configuration import compose
from videogn.prediction.load import build_network

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
START, END = "<!-- counted by scripts/count_models.py -->", "<!-- end of the table -->"
ZOO = "[pytorchvideo](https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/model_zoo.md)"
SLOWFAST = "[PySlowFast](https://github.com/facebookresearch/SlowFast/blob/main/MODEL_ZOO.md)"
VMZ = "[VMZ](https://github.com/facebookresearch/VMZ/blob/main/tutorials/model_zoo.md)"
TORCHVISION = "[torchvision](https://docs.pytorch.org/vision/stable/models.html#video-classification)"


@dataclass(frozen=True)
class Row:
    """A model and what is published of it.

    Attributes:
        name: of conf/model.
        clip: (T, H, W) for which the multiply-adds are published.
        source: who published.
        parameters: millions, as printed there; None where nothing is.
        multiply_adds: giga, as printed there.
        with_norms: whether that counts 5 for each value that goes into a batch norm as well.
        changes: of the model's configuration.
    """

    name: str
    clip: tuple[int, int, int]
    source: str = ""
    parameters: str | None = None
    multiply_adds: str | None = None
    with_norms: bool = False
    changes: tuple[str, ...] = ()


ROWS = (
    Row("i3d_r50", (32, 224, 224)),
    Row("i3d_r50_8x8", (8, 224, 224)),
    Row("i3d_r101", (32, 224, 224)),
    Row("i3d_r101_8x8", (8, 224, 224)),
    Row("i3d_r50_slowfast", (8, 256, 256), ZOO, "28.04", "37.53", True),
    Row("c2d_r50", (8, 256, 256), ZOO, "24.33", "25.89", True),
    Row("slow_r50", (8, 256, 256), ZOO, "32.45", "54.52"),
    Row("slowfast_r50", (32, 256, 256), ZOO, "34.57", "65.71"),
    Row("r3d_18", (16, 112, 112), TORCHVISION, "33.37", "40.70"),
    Row("r3d_18_hara", (16, 112, 112)),
    Row("r3d_34", (16, 112, 112)),
    Row("r3d_50", (16, 112, 112)),
    Row("r3d_101", (16, 112, 112)),
    Row("r2plus1d_18", (16, 112, 112), TORCHVISION, "31.51", "40.52"),
    Row("r2plus1d_34", (8, 128, 128), VMZ, "63.6", "49.8"),
    Row("r2plus1d_50", (16, 256, 256), ZOO, "28.11", "76.45", True),
    Row("csn_r101", (32, 256, 256), ZOO, "22.21", "75.62", True),
    Row("csn_r101", (32, 256, 256), VMZ, None, "96.7", changes=("model.depth=152",)),
    Row("x3d_xs", (4, 160, 160), SLOWFAST, "3.8", "0.60"),
    Row("x3d_s", (13, 160, 160), SLOWFAST, "3.8", "1.96"),
    Row("x3d_m", (16, 224, 224), SLOWFAST, "3.8", "4.73"),
    Row("x3d_l", (16, 312, 312), SLOWFAST, "6.2", "18.37"),
    Row("inception_i3d", (64, 224, 224)),
    Row("resnet3d_tiny", (8, 64, 64)),
)


@dataclass(frozen=True)
class Count:
    """Parameters, multiply-adds of convolutions and linear layers, and values that go into batch norms."""

    parameters: int
    multiply_adds: float
    norm_values: int

    @property
    def with_norms(self) -> float:
        """As fvcore counted when the zoo was published: 5 for every value of a batch norm."""
        return self.multiply_adds + 5 * self.norm_values


def count(row: Row) -> Count:
    """Build the model without values and run a clip of its size through."""
    values = 0

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal values
        values += inputs[0].numel()

    with torch.device("meta"):
        network = build_network(compose("train", [f"model={row.name}", "norm=batch_norm", *row.changes]), 400).eval()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(add)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, *row.clip))
    return Count(sum(p.numel() for p in network.parameters()), counter.get_total_flops() / 2, values)


def table() -> str:
    """The rows in Markdown."""
    lines = [
        "| model | clip | parameters (M) | published | multiply-adds (G) | published | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        counted = count(row)
        name = " ".join([row.name, *row.changes])
        giga = f"{counted.multiply_adds / 1e9:.2f}" + (f", with norms {counted.with_norms / 1e9:.2f}" if row.with_norms else "")
        cells = [name, " x ".join(map(str, row.clip)), f"{counted.parameters / 1e6:.2f}", row.parameters or ""]
        lines.append(f"| {' | '.join([*cells, giga, row.multiply_adds or '', row.source])} |")
    return "\n".join(lines)


def main() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
