"""The files that `kt init` writes, one per template; the first line of each says what it is for."""
