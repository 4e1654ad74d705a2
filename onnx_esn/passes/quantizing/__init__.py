"""Quantizing weights: grids, bits and codes."""
