"""Channel selection as a discrete quadratically constrained quadratic program: arrays only."""
