"""Records straight into columns: the native decoder, what it is told of a schema, and what it gives back."""
