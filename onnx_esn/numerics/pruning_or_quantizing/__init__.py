"""At equal compression: which loses less, fewer bits or fewer weights?

`distributions`, `theory`: what Gaussian and Student-t weights lose, in closed form.
`integer_grid`, `magnitude`: what the weights of a tensor lose.
`fixed_step`, `code_bound`, `masks`, `mask_search`, `spectral`: what the outputs lose when codes, or
mask and weights, are chosen for them, and below what no choice can get.

n bits stand against magnitude pruning that keeps n/16 of the weights, 16-bit numbers, whose mask
costs nothing. Source: Kuzmin, Nagel, van Baalen, Behboodi and Blankevoort (2023), "Pruning vs
quantization: which is better?".
"""

BITS = (8, 4, 3, 2)
FULL_BITS = 16  # of a weight that is neither pruned nor quantized
