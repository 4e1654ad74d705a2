"""Quantizing what flows between the layers."""
