"""Which channels go together: labels, the rules of operators, classes and groups."""
