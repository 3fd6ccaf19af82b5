"""A server of bundles: texts in over HTTP in several protocols, labels with probabilities out."""
