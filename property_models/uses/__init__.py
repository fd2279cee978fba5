"""What property models are used for: screening, substitution, dynamics, pictures."""
