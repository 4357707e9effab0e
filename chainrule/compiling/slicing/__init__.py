"""A step in slices: forward and backward pass for some rows of the batch at a time, while they are in the cache.

Gradients are sums over rows, so they add up. What the rows must know of one another is computed before, what needs
all of a sum comes after."""
