"""Fourier transforms: linear, so each backward step is the transposed transform, which is a transform again."""
