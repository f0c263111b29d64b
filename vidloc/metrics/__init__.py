"""Detections and truth to floats. NumPy only."""
