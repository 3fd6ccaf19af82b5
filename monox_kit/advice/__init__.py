"""Whether a teacher is worth its labelling: its lead, and what was gained at such leads."""
