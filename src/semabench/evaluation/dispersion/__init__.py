"""How far attention weights disperse as the number of keys grows."""
