"""Labels from a file: what a language model, an API, rules or people have said becomes a store."""
