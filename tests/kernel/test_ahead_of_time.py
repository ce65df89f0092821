"""Every kernel that a launch can choose compiles for sm_80, sm_90 and sm_100, in registers alone. Needs no GPU.

Each launch for one of the three, drawn, in 80 s of one core; EXHAUSTIVE=1 takes all three, and odd sizes of each.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("triton", reason="triton comes with torch on Linux")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from videogn.kernel.group_norm import triton as kernels

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ARCHITECTURES = (80, 90, 100)
DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.float64: "fp64", torch.uint8: "u8"}
KERNELS = sorted(name for name in vars(kernels) if name.endswith("_kernel"))
TAILS = [(False, None), (False, "relu"), (False, "silu"), (True, None), (True, "relu"), (True, "silu")]


class Launch(NamedTuple):
    """By what a kernel is compiled."""

    kernel: str
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]


class Recorder:
    """Stands where a kernel stands, and writes down its launches."""

    def __init__(self, name: str, launches: set[Launch]) -> None:
        self._name, self._launches = name, launches
        self._names = getattr(kernels, name).arg_names

    def __getitem__(self, grid: tuple[int, ...]) -> Recorder:
        return self

    def __call__(self, *positional: Any, num_warps: int, enable_fp_fusion: bool, **named: Any) -> None:
        assert {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion} == kernels.OPTIONS
        values = dict(zip(self._names, positional, strict=False)) | named
        assert set(values) == set(self._names)
        signature, constants = {}, {}
        for name in self._names:
            value = values[name]
            if isinstance(value, torch.Tensor):
                signature[name] = f"*{DTYPES[value.dtype]}"
            elif name.isupper():
                signature[name], constants[name] = "constexpr", value
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        self._launches.add(Launch(self._name, tuple(signature.items()), tuple(constants.items())))


def launches() -> list[Launch]:
    """Those of every dtype, layout and tail, on clips that reach every tiling."""
    found: set[Launch] = set()
    with pytest.MonkeyPatch.context() as patch:
        for name in KERNELS:
            patch.setattr(kernels, name, Recorder(name, found))
        for dtype, (channels, side), last, (with_residual, activation) in itertools.product(
            list(DTYPES)[:4], [(16, 4), (256, 64)], (False, True), TAILS
        ):
            x = torch.empty((2, channels, 1, side, side), dtype=dtype, device="meta")
            x = x.contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
            parameter = torch.empty(channels, dtype=torch.promote_types(dtype, torch.float32), device="meta")
            residual = x if with_residual else None
            saved = kernels.forward(x, parameter, parameter, 4, 1e-5, residual, activation)
            given = residual if activation == "silu" else None
            kernels.backward(x, x, parameter, parameter, saved.mean, saved.rstd, given, saved.mask, 4, activation, with_residual)
    return sorted(found, key=str)


def compile_ahead(launch: Launch, architecture: int, odd: bool = False) -> tuple[str, str]:
    """The resource usage that cuobjdump reads from the cubin, and the PTX.

    Triton compiles sizes that 16 divides apart from others (`odd`: 7 x 7 positions, C = 100), and a group count of 1 as a
    constant.
    """
    kernel = getattr(kernels, launch.kernel)
    place = {name: (index,) for index, name in enumerate(kernel.arg_names)}
    by_sixteen = [["tt.divisibility", 16]]
    constants, signature = dict(launch.constants), dict(launch.signature)
    if odd and "num_groups" in signature:
        constants["num_groups"], signature["num_groups"] = 1, "constexpr"
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={place[name]: value for name, value in constants.items()},
        attrs={
            place[name]: by_sixteen
            for name, kind in launch.signature
            if kind.startswith("*") or name == "chunk" or (name in ("channels", "positions") and not odd)
        },
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=dict(kernels.OPTIONS))
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return usage.stdout, compiled.asm["ptx"]


def findings(launch: Launch, architecture: int, odd: bool = False) -> list[str]:
    """What is wrong with one of them."""
    usage, ptx = compile_ahead(launch, architecture, odd)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    wrong = []
    if not found:
        wrong.append(f"no resource usage: {usage}")
    elif found[3] != "0" or int(found[2]) > (8 if odd and dict(launch.constants).get("ACTIVATION") == "silu" else 0):
        wrong.append(f"{found[0]}: spills, or an array in local memory")
    if re.search(r"\batom\.|\bred\.(?!async)", ptx):
        wrong.append("an atomic: not the same in every run")
    constants = dict(launch.constants)
    if not odd and "BLOCK_S" in constants and "*bf16" in dict(launch.signature).values() and "ld.global.v4.b32" not in ptx:
        wrong.append("no load of 16 bytes")
    facts = f"sm_{architecture} {launch.kernel} {dict(launch.signature)['x_ptr']}" if "BLOCK_S" in constants else launch.kernel
    return [f"{facts} {constants}: {what}" for what in wrong]


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if kernels.INTERPRETED:
        pytest.skip("this process interprets the kernels")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # or yesterday's cubin would be read


def test_launches_reach_every_tiling() -> None:
    """What the sizes above choose is all that any size chooses."""

    def blocks(channels: int, positions: int, size: int, last: bool) -> tuple[bool, int, int, int]:
        t = kernels.tiling(channels, positions, size, last)
        assert t.chunk % t.block_s == 0
        assert t.chunk * t.block_c * size <= 65536
        assert last or t.block_s % 8 == 0  # a byte of the mask has one writer
        return last, t.block_c, t.block_s, size

    sizes = [*range(1, 300), 512, 783, 1024, 2047, 2048, 4095, 401408, 802816]
    possible = {blocks(c, s, e, last) for c in (*sizes[:299:7], 2048) for s in sizes for e in (2, 4, 8) for last in (False, True)}
    reached = set()
    for launch in launches():
        constants = dict(launch.constants)
        if launch.kernel == "moments_kernel":
            size = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}[dict(launch.signature)["x_ptr"][1:]]
            reached.add((constants["CHANNELS_LAST"], constants["BLOCK_C"], constants["BLOCK_S"], size))
    assert reached == possible


def drawn(kernel: str, odd: bool) -> list[tuple[Launch, int]]:
    """Its launches, each with an architecture; for EXHAUSTIVE=1 with every one."""
    chosen = [launch for launch in launches() if launch.kernel == kernel]
    if os.environ.get("EXHAUSTIVE") == "1":
        return list(itertools.product(chosen, ARCHITECTURES))
    random.Random(0).shuffle(chosen)
    # Those of odd sizes are drawn again: each third, every architecture's turn.
    places = range(0, len(chosen), 3) if odd else range(len(chosen))
    return [(chosen[place], ARCHITECTURES[(place // 3 if odd else place) % 3]) for place in places]


@pytest.mark.turns
@pytest.mark.parametrize("kernel", KERNELS)
def test_every_launch_compiles_without_spills(kernel: str, compiling: None) -> None:
    chosen = drawn(kernel, odd=False)
    assert chosen
    wrong = [line for launch, architecture in chosen for line in findings(launch, architecture)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.turns
@pytest.mark.parametrize("kernel", KERNELS)
def test_launches_of_odd_sizes_compile_too(kernel: str, compiling: None) -> None:
    """Some of the 32 sums with SiLU have 8 bytes on the stack for it; nothing else has any."""
    wrong = [line for launch, architecture in drawn(kernel, odd=True) for line in findings(launch, architecture, odd=True)]
    assert not wrong, "\n".join(wrong)
