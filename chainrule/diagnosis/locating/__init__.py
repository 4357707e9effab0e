"""Which line is wrong by itself: in what order gradients were computed, what is missing, what happened on the way."""
