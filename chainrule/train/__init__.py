"""Training with derived backward passes: data, the loop, its curve."""
