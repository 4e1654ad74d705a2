"""Equalisation in parts: which channels can be scaled, by how much, and the rewriting."""
