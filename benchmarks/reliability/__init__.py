"""Kill, damage and interrupt runs many times, and count wrong products and what is left over."""
