"""What gradients are used for: intervals of a quantizer, and steps down a slope."""
