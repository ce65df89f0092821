"""Operators behind the norms; a folder per operator, a module per way of computing it."""
