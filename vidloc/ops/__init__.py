"""Arrays in, arrays out: boxes and ROI-Align."""
