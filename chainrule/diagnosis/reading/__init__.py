"""Hand-written code as it ran: what goes with it, what it computed where, and what of it is a gradient."""
