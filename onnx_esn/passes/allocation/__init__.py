"""Where a budget of MAC·bit is spent: which channels stay, and how many bits each filter gets."""
