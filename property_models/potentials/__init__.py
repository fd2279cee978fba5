"""Potentials: CHGNet and its pupil on soft species, element references, distillation."""
