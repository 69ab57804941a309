"""`taskforge demo`: real work through the whole system, with every result checked."""
