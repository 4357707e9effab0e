"""One functional graph of aten operations for a whole step, and the passes that make it shorter or smaller."""
