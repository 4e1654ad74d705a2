"""Learn a compressed model's weights from what the float model makes of unlabeled images."""
