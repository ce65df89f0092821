"""Train, test and export 3D convolutional video classifiers whose accuracy does not depend on the batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `videogn --help` does not wait for torch
    import os

    from videogn.prediction.classifier import Classifier

__version__ = "0.1.0"


def load(path: str | os.PathLike[str], device: str = "auto", batch_size: int | None = None, trust: bool = False) -> Classifier:
    """A trained classifier, from a run folder, a checkpoint or an exported model: the three give the same answers.

        >>> import videogn
        >>> classifier = videogn.load(RUN)
        >>> prediction = next(classifier.predict([VIDEO], top=2))
        >>> [answer.label in classifier.classes for answer in prediction.top]
        [True, True]
        >>> timeline = classifier.timeline(VIDEO, hop_seconds=0.5)
        >>> timeline.segments[0].start_seconds
        0.0
        >>> timeline.segments[-1].end_seconds == timeline.duration_seconds
        True
        >>> features = classifier.features([VIDEO, "no such file.mp4"])
        >>> features.ndim, bool(features[1].sum() > 0)
        (2, False)
        >>> explanation = classifier.explain(VIDEO)
        >>> explanation.label == prediction.top[0].label, explanation.heat.shape == explanation.clip.shape[:3]
        (True, True)

    Args:
        path: a run folder (its last.ckpt), a .ckpt, or what `videogn export` wrote: .onnx, .pt2, .xml (OpenVINO), .safetensors
            or a Hub folder.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:N" or "mps"; a graph (.onnx, .pt2, .xml) runs
            on the CPU.
        batch_size: views in one forward; None: the training's. Where the device's memory does not take them, half as many.

    Raises:
        InputError: none of these, or damaged, or naming a class that no conf/ folder names; a .pt2 without trust; no such device;
            batch_size below 1.
    """
    from pathlib import Path

    from videogn.prediction.load import load

    return load(Path(path), device, batch_size, trust)
