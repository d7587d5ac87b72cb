"""Images become batches: finding, packing, checking and loading them."""
