"""Layer after layer: weights that bring a compressed model's outputs back to the reference's."""
