"""Whole studies: several runs that are compared with each other."""
