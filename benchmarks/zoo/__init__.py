"""The zoo: exported nets of many families, and how pruning fares on each of them."""
