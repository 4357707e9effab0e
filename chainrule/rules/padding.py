"""Padding, and folding of windows."""
