"""The audit of a test: mistakes planted in a backward pass, and which of them the test notices."""
