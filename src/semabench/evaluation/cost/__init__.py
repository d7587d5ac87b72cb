"""Cost: speed, memory and energy of models on random pictures, peers measured in turn."""
