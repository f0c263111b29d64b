"""Readers of weight files: names, shapes and dtypes at once, one tensor at a time; without jax or torch."""
