"""The prior over genes and species: networks, exact constraints, drawing, likelihood, critic."""
