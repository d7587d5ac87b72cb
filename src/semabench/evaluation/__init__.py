"""Measure a model at a resolution: accuracy, cost, dispersion."""
