"""What there is to know of a model before anything is done to it."""
