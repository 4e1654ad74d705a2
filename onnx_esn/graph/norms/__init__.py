"""Where a model's channels are normalized, and how to change those statistics."""
