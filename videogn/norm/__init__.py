"""Normalization layers: one contract, `norm(channels, activation=None, zero_init=False)`.

`convert(model, norm)` brings them into any torch model.
"""

from videogn.norm.conversion import ConversionReport, LayerConversion, convert

__all__ = ["ConversionReport", "LayerConversion", "convert"]
