"""Convolutions: one contract, `conv(in_channels, out_channels, kernel_size, stride, padding)`."""
