"""Hand-written backward passes: which line is wrong, why, and the repair, proved."""
