"""Text files to records; the only room that knows a file format. NumPy only."""
