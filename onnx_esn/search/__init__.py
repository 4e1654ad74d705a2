"""Searches over the passes: methods side by side at each budget, or a grid."""
