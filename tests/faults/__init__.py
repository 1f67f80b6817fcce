"""A storm of faults, drawn from a seed, around real parts; afterwards everything is checked."""
