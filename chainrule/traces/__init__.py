"""Every step of a derivation with its value, where it comes from and who uses it; two runs side by side."""
