"""Cholesky, QR, LU, eigen- and singular value decompositions."""
