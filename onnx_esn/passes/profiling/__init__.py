"""How long a model's layers take at other widths, timed one layer at a time."""
