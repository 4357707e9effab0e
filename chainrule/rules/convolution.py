"""Convolutions in one to three dimensions, transposed, strided, padded, dilated and grouped."""
