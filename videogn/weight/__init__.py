"""Weights that others trained: one module for each layout of files, `load(path, model) -> LoadReport`."""
