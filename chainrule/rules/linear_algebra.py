"""Inverses, solutions, determinants, norms and functions of matrices."""
