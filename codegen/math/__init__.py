"""Vector math functions."""
