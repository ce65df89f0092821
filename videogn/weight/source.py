"""What every layout shares: find or fetch the file, match names and shapes, check, and only then change the model."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from videogn.types import InputError
from videogn.weight.download import fetch
from videogn.weight.inflate import Inflation, inflate
from videogn.weight.read import State, why_no_weight
from videogn.weight.report import Entry, LoadReport

_NO_PLACE = "with no place in this model"
_COPIED = "taken over, as asked"
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class WeightSource(ABC):
    """A layout of files, and the public files in it.

    Convolutions and the linear layer go over by name and shape: 2D kernels, and 3D ones over one frame, are inflated. Norms go
    over to norms of their kind. Gamma and beta that were trained with batch statistics assume these, so they do not go over to a
    group norm, nor those of a group norm to another number of groups or to a batch norm, unless `copy_affine` says so;
    statistics never do.

    Args:
        path: the file; None fetches `file` of `files`.
        file: name of a public file.
        files: name -> {url, sha256: the first digits or null, size: bytes or null}.
        inflation: "repeat" or "center", see `inflate`.
        copy_affine: gamma and beta go over to any norm.
        strict: a load that matches less than half of the backbone's parameters, or another depth, is an error.
        cache: folder of the fetched files; None is $VIDEOGN_CACHE, else ~/.cache/videogn.

    Raises:
        InputError: `inflation` is neither, or an entry of `files` says something else.
    """

    layout: ClassVar[str]  # its name in messages

    def __init__(
        self,
        path: str | None = None,
        file: str | None = None,
        files: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        inflation: Inflation = "repeat",
        copy_affine: bool = False,
        strict: bool = True,
        cache: str | None = None,
    ) -> None:
        if inflation not in ("repeat", "center"):
            raise InputError(f"weight.inflation={inflation!r}; use repeat or center")
        for name, entry in (files or {}).items():
            if not _is_published(entry):
                raise InputError(
                    f"weight.files.{name}={entry}; give {{url: 'https://...', sha256: '8 of its digits or more'}}, or null"
                )
        self.path = path
        self._file = file
        self._files = dict(files or {})
        self._inflation: Inflation = inflation
        self._copy_affine = copy_affine
        self._strict = strict
        self._cache = cache

    @abstractmethod
    def read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a file under the file's names.

        Raises:
            InputError: it is of another layout, damaged, or names what is no array.
        """

    @abstractmethod
    def names(self, state: Mapping[str, Tensor]) -> dict[str, str]:
        """Name in the file -> name in the model, of those that have one."""

    def convert(self, state: Mapping[str, Tensor], name: str, value: Tensor) -> tuple[Tensor, str]:
        """A tensor of `state` as the model counts its axes, and what was done for that; `name` is the model's."""
        return value, ""

    def head_differs(self, value: Tensor, own: Tensor, of_images: bool, classes: Sequence[str] | None) -> str:
        """Why the file's linear layer is not the model's, or nothing."""
        if of_images:
            return f"{value.shape[0]} classes of images in the file: it starts anew"
        if value.shape[0] != own.shape[0]:
            return f"{value.shape[0]} classes in the file, {own.shape[0]} here: it starts anew"
        return ""

    def groups(self, channels: int) -> int | None:
        """G of the file's group norms over so many channels; None where nothing is known of it."""
        return 32

    def notes(self, state: Mapping[str, Tensor]) -> list[str]:
        """What should be known of this file whatever the model is."""
        return []

    def resolve(self) -> Path:
        """The file: `path`, or the public one from the cache folder or its address.

        Raises:
            InputError: neither is given, or it cannot be fetched.
        """
        if self.path is not None:
            return Path(self.path)
        if not self._files:
            raise InputError(f"weight.path: needed for {self.layout}; give it as weight.path=FILE")
        if self._file not in self._files:
            raise InputError(
                f"weight.file={self._file}; use one of {', '.join(sorted(self._files))}, or give your own as weight.path=FILE"
            )
        return fetch(**self._files[self._file], cache=self._cache)

    def load(self, path: str | Path, model: nn.Module, classes: Sequence[str] | None = None) -> LoadReport:
        """Take over what fits; the model changes only if nothing is wrong.

        Args:
            classes: those of the model, for layouts that say theirs.

        Raises:
            InputError: see `read`; or less than half of the backbone, or another depth, while `strict`.
        """
        path = Path(path)
        state = self.read(path)
        placed, unused = self._placed(state)
        target = model.state_dict()
        norms: dict[str, Any] = {name: m for name, m in model.named_modules() if hasattr(m, "no_decay_parameters")}
        of_batch_norm = {name.rpartition(".")[0] for name in placed if name.endswith("running_var")}
        of_images = not any(value.ndim == 5 for value in state.values())

        entries, new = [], {}
        for name, own in target.items():
            layer, _, kind = name.rpartition(".")
            source, value = placed.pop(name, ("", None))
            if kind == "num_batches_tracked" and (value is None or not _is_counter(value)):
                unused += [(source, "a counter that is no whole number")] if source else []
                continue  # many files leave it out, and it matters to momentum=null alone
            done = ""
            if value is not None:
                value, done = self.convert(state, name, _floating(path, source, value) if own.is_floating_point() else value)
            reason, outcome = "", "renamed" if source != name else "loaded"
            if value is None:
                reason = "statistics of its own" if kind in _STATISTICS else "not in the file"
            elif name.startswith("head.") and value.ndim:
                reason = self.head_differs(value, own, of_images, classes)
            elif layer in norms and (differs := self._norm_differs(norms[layer], layer in of_batch_norm)):
                if kind in _STATISTICS or not self._copy_affine:
                    reason = f"{differs}, not taken over"
                else:
                    done = f"{differs}, {_COPIED}"
            if value is not None and not reason:
                fitted, inflated = self._fit(value, own)
                if fitted is None:
                    reason = f"its shape {_shape(value)} does not fit {_shape(own)}"
                else:
                    new[name] = fitted.to(own.dtype)
                    if problem := _damage(fitted, new[name], kind):
                        raise InputError(f"{path}: {source} holds a {problem}")
                    outcome = "inflated" if inflated else outcome
            entries.append(Entry(name, "skipped" if reason else outcome, source, reason or done, own.numel()))
        unused += [(source, _why_left(name, norms)) for name, (source, _) in placed.items()]

        notes = [state.note] if isinstance(state, State) and state.note else []
        notes += [*self.notes(state), *_norm_notes(entries, norms)]
        report = LoadReport(f"{path.name} ({self.layout})", entries, unused, notes)
        if self._strict:
            self._check(path, report, self.names(state).values(), target)
        with torch.no_grad():
            model.load_state_dict({**target, **new})
        return report

    def _placed(self, state: Mapping[str, Tensor]) -> tuple[dict[str, tuple[str, Tensor]], list[tuple[str, str]]]:
        """Name in the model -> (name in the file, tensor); and (name in the file, why) of the others."""
        names = self.names(state)
        placed: dict[str, tuple[str, Tensor]] = {}
        unused: list[tuple[str, str]] = []
        for source, value in state.items():
            name = names.get(source)
            if name is None:
                unused.append((source, _NO_PLACE))
            elif name in placed:
                unused.append((source, f"as {placed[name][0]} has its place"))
            else:
                placed[name] = (source, value)
        return placed, unused

    def _fit(self, value: Tensor, own: Tensor) -> tuple[Tensor | None, bool]:
        """`value` in the shape of `own`, and whether it was inflated."""
        if value.shape == own.shape:
            return value, False
        plain = value
        if value.ndim == 5 and own.ndim == 5 and value.shape[2] == 1:
            plain = value.squeeze(2)
        if plain.ndim == 4 and own.ndim == 5 and plain.shape == own.shape[:2] + own.shape[3:]:
            return inflate(plain, own.shape[2], self._inflation), own.shape[2] > 1 or value.ndim == 4
        # A linear layer is a convolution of one position.
        if own.ndim == 2 and value.shape[:2] == own.shape and value.numel() == own.numel():
            return value.reshape(own.shape), False
        return None, False

    def _norm_differs(self, norm: Any, of_batch_norm: bool) -> str:
        """What a norm's gamma and beta were trained for, where that is not this norm."""
        if of_batch_norm != hasattr(norm, "running_var"):
            return f"of a {'batch' if of_batch_norm else 'group'} norm"
        if not of_batch_norm and hasattr(norm, "num_groups"):
            groups = self.groups(norm.channels)
            if groups is not None and groups != norm.num_groups:
                return f"of {groups} groups, and these are {norm.num_groups}"
        return ""

    def _check(self, path: Path, report: LoadReport, names: Iterable[str], target: Mapping[str, Tensor]) -> None:
        theirs, ours = _depths(names), _depths(target)
        if differing := [stage for stage in ours if stage in theirs and ours[stage] != theirs[stage]]:
            stage = differing[0]
            raise InputError(
                f"{path}: of another depth: {theirs[stage]} blocks in {stage}, and the model has {ours[stage]}; choose the model "
                "or the file, or take over what fits with weight.strict=false"
            )
        if report.backbone_share < 0.5:
            skipped = next((f"{e.name}: {e.reason}" for e in report.entries if e.outcome == "skipped"), "nothing fits")
            raise InputError(
                f"{path}: {report.backbone_share:.0%} of the backbone's parameters are in it ({skipped}); choose the model that "
                "it was trained as, or take over what fits with weight.strict=false"
            )


def _floating(path: Path, source: str, value: Tensor) -> Tensor:
    """A tensor of the file as numbers to compute with: 11 bits would round a third of an inflated kernel."""
    if reason := why_no_weight(value):
        raise InputError(
            f"{path}: {source} {reason}, and a layer takes plain floating point; give the file as it was before it was converted"
        )
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _is_counter(value: Tensor) -> bool:
    plain = value.ndim == 0 and value.layout == torch.strided and not value.is_meta
    return plain and value.dtype in (torch.int64, torch.int32)


def _damage(found: Tensor, taken: Tensor, kind: str) -> str:
    if not bool(torch.isfinite(taken).all()):
        if bool(torch.isfinite(found).all()):
            return f"value that {taken.dtype} cannot; the file is damaged"
        return "value that is not finite; the file is damaged, or its training failed"
    return "negative variance; the file is damaged" if kind == "running_var" and bool((taken < 0).any()) else ""


def _is_published(entry: Any) -> bool:
    """Whether it is what `fetch` takes."""
    if not isinstance(entry, Mapping) or not {"url"} <= entry.keys() <= {"url", "sha256", "size"}:
        return False
    sha256, size = entry.get("sha256"), entry.get("size")
    is_hash = sha256 is None or (isinstance(sha256, str) and re.fullmatch("[0-9a-fA-F]{8,64}", sha256) is not None)
    return isinstance(entry["url"], str) and is_hash and (size is None or isinstance(size, int))


def _depths(names: Iterable[str]) -> dict[str, int]:
    """Blocks in every stage."""
    blocks: dict[str, set[str]] = defaultdict(set)
    for name in names:
        if found := re.match(r"trunk\.((?:slow\.|fast\.)?res\d+)\.(\d+)\.", name):
            blocks[found[1]].add(found[2])
    return {stage: len(numbers) for stage, numbers in blocks.items()}


def _norm_notes(entries: Sequence[Entry], norms: Mapping[str, Any]) -> list[str]:
    """What a user must know of norms that start anew, or that were taken over from another kind."""
    affine = [e for e in entries if e.name.rpartition(".")[0] in norms and e.name.endswith((".weight", ".bias"))]
    anew = [e for e in affine if e.outcome == "skipped" and e.source]
    copied = [e for e in affine if e.reason.endswith(_COPIED)]
    closed = [e for e in affine if e.outcome == "skipped" and e.name.endswith(".weight") and norms[e.name[:-7]].zero_init]
    notes = []
    if anew:
        notes.append(
            f"{len(anew)} gammas and betas start anew: they were trained for other statistics. "
            "weight.copy_affine=true takes them over all the same"
        )
    if closed:
        notes.append(
            f"{len(closed)} residual blocks start closed: the gamma of their last norm is 0, and what their kernels compute "
            "comes in as it grows. model.zero_init=false starts it at 1"
        )
    if copied:
        notes.append(
            f"warning: {len(copied)} gammas and betas were taken over from another kind of norm, as weight.copy_affine=true "
            "asks; they undo the scale and shift of statistics that this model does not compute"
        )
    return notes


def _why_left(name: str, norms: Mapping[str, Any]) -> str:
    layer, _, kind = name.rpartition(".")
    return "running statistics, which this model's norms do not keep" if kind in _STATISTICS and layer in norms else _NO_PLACE


def _shape(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "of one number"
