"""Pictures of a derivation, as SVG: its graph, a value beside its gradient, a product of matrices."""
