"""Accuracy of a trained model against resolution."""
