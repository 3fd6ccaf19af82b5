"""Model folders: opened through one door, tokenized, batched and scored on any backend."""
