"""Models of label noise: how given labels arise from true ones, and the posterior that undoes it."""
