"""Why a right line and the derived one are equal, where their forms differ."""
