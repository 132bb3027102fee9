"""Ask models about artifacts and read their answers."""
