"""Interpolation, grid sampling, and the shuffling of channels into pixels."""
