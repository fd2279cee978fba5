"""The flow on what symmetry leaves free: integration, coupling, velocity, loss, sampler."""
