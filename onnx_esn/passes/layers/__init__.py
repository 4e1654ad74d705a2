"""What passes ask about layers: which, what they cost, what reads them."""
