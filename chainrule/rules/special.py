"""Special functions, each acting on every element by itself."""
