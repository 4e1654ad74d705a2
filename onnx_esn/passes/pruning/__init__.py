"""Removing channels: how many, which, and what of them stays."""
