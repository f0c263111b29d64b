"""Pictures, annotated videos and the run page."""
