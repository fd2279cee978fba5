"""What a crystal is worth: property networks and physics. May import autoperi, never evaluation."""
