"""Prune or quantize? What a model's own weights, outputs and channels say."""
