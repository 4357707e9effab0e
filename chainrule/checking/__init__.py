"""Compare and diagnose: a hand-written backward pass against the derived one."""
