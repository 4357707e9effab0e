"""Running sums, products, maxima and integrals."""
