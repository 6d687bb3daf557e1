"""tcc: write array expressions, compile them."""
