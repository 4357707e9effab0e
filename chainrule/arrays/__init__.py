"""NumPy code run on torch: arrays that a recorder can follow, in place of NumPy's."""
