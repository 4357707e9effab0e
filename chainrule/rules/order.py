"""Sorting, medians, quantiles and modes: the gradient goes to the elements that were chosen."""
