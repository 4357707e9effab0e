"""What is said of a mistake, and its repair: written in the person's words, run, and proved."""
