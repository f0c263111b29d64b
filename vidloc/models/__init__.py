"""Flax modules: backbones, heads and the Localizer that joins them."""
