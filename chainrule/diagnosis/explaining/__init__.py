"""Why a line is wrong: what its numbers say, and which small change makes them right."""
