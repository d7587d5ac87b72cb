"""Images that are computed, not photographed: the dataset `shapes` and four diagnostic tasks."""
