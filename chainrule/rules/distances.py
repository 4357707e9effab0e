"""Distances between vectors, and the losses made of them."""
