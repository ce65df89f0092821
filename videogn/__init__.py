"""Train, test and export 3D convolutional video classifiers whose accuracy does not depend on the batch size."""

__version__ = "0.1.0"
