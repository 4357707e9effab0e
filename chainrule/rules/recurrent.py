"""Recurrent cells and layers, opened through time."""
