"""Rows in the schema of this package, as it writes them."""
