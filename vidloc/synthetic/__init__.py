"""MocapStreet: real human motion, rendered, with exact labels."""
