"""What a network's last linear layer reads, taken from the forward pass that gives its scores."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from videogn.types import InputError


class RecordFeatures:
    """(N, 3, T, H, W) -> scores (N, K) and `network.features` of the same clips (N, D).

    A forward that calls `self.features` on the clips, as those of this package do, is computed once. Of any other, of which
    nothing more is known, the features are computed anew.

    Raises:
        InputError: the network has no `features`.
    """

    def __init__(self, network: nn.Module) -> None:
        require_features(network)
        self._network: Any = network

    def __call__(self, clips: Float[Tensor, "N 3 T H W"]) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N D"]]:
        network, features = self._network, self._network.features
        found: list[Tensor] = []

        def record(given: tuple[Any, ...], result: Any) -> Any:
            if len(given) == 1 and given[0] is clips and isinstance(result, Tensor):
                found.append(result.clone())  # what follows may work in place
            return result

        if isinstance(features, nn.Module):
            handle = features.register_forward_hook(lambda _, given, result: record(given, result))
            try:
                scores = network(clips)
            finally:
                handle.remove()
        else:
            before = vars(network).get("features")
            network.features = lambda *given, **named: record(() if named else given, features(*given, **named))
            try:
                scores = network(clips)
            finally:
                del network.features
                if before is not None:
                    network.features = before
        read = found[0] if found else features(clips)
        if not isinstance(read, Tensor) or read.ndim != 2 or len(read) != len(clips):
            raise InputError(
                f"features: those of {type(network).__name__} are no tensor (N, D), which features(clips) has to give"
            )
        return scores, read


def require_features(network: nn.Module | None) -> None:
    """Raises InputError where there are none to read."""
    if network is None:
        raise InputError("features: an exported file gives scores alone; give the run or the .ckpt that it was exported from")
    if not callable(getattr(network, "features", None)):
        raise InputError(f"features: {type(network).__name__} has no features(clips) -> (N, D); add it to the model")
