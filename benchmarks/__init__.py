"""Figures, and the commands that print them."""
