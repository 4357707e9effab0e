"""Writing into places chosen by an index: what is overwritten gets no gradient, what is added gets all of it."""
