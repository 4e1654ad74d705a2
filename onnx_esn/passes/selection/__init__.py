"""Channel selection: the quadratic program of a model, and what its solution removes."""
