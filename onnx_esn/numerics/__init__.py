"""Arrays in, arrays out: the method in numpy and scipy, one concept a file."""
