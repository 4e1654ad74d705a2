"""Bringing a changed model's outputs back to what they were."""
