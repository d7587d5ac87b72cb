"""Where Hydra looks for plugins: thin classes; what they do is in `semabench.sweep`."""
