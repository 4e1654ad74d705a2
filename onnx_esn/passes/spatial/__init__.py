"""Spatial pruning: positions of convolution kernels instead of whole filters."""
