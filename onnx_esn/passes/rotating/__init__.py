"""Change the basis of linear tensors, so that few bits fit the weights around them."""
