"""Take channels out of a graph: slice the tensors, mend the nodes, prove the result."""
