"""Property networks: a graph network of any convolution, and calibrated ensembles of it."""
