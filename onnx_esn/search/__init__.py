"""Searches over the passes: the sweep grid."""
