"""FFCV's .beton files: their format, packing, rendering, checking and loading."""
