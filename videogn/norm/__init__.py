"""Normalization layers: one contract, `norm(channels, activation=None, zero_init=False)`."""
