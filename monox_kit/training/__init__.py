"""Fine-tuning a teacher, and training a student from labelled text and logit stores."""
