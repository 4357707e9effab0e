"""The right gradients beside a person's: at the inputs of the run, at others, by differences; what rounding explains."""
