"""Videos and records to batches. NumPy only."""
