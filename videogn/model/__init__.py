"""Networks: one contract, `model(num_classes, norm, conv)`, which maps (N, 3, T, H, W) to (N, K)."""
