"""trainer.deterministic=true: the same run twice, to the last bit; and what refuses it, in a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from videogn.training.quiet import guarded
from videogn.types import InputError

# As torch says it of a kernel on a GPU.
REFUSED = (
    "max_pool3d_with_indices_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this operation, or you can use ..."
)


@pytest.fixture
def as_before() -> Iterator[None]:
    """Lightning sets it for the process."""
    before, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before)
    torch.backends.cudnn.benchmark = benchmark
    if workspace is None:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("as_before")
def test_the_same_run_twice(videogn: Callable, tiny: Sequence[str], trained: Path, tmp_path: Path) -> None:
    """With dropout, mixing and every augmentation, decoded by two processes."""
    words = [*tiny, f"dataset.root={trained.parent}/motion", "num_workers=2", "report_videos=0", "trainer.deterministic=true"]
    random = ["model.dropout=0.5", "mixing.mixup_alpha=0.8", "appearance.num_ops=1", "appearance.erase_probability=0.5"]
    for name in ("one", "other"):
        outcome = videogn("train", *words, *random, f"out={tmp_path}/{name}")
        assert outcome.status == 0, outcome.err
        assert torch.are_deterministic_algorithms_enabled()
    one, other = (torch.load(tmp_path / name / "checkpoint/last.ckpt", weights_only=True) for name in ("one", "other"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    moments = [state["optimizer_states"][0]["state"][0]["momentum_buffer"] for state in (one, other)]
    assert torch.equal(*moments)


def test_an_operation_that_has_no_such_way_is_one_line() -> None:
    with pytest.raises(InputError) as caught, guarded(2, 4, 16):
        raise RuntimeError(REFUSED)
    assert str(caught.value) == (
        "trainer.deterministic=true: max_pool3d_with_indices_backward_cuda does not have a deterministic implementation here; "
        "trainer.deterministic=warn runs it all the same and says so"
    )
