"""XNLI: whether a sentence follows from another, in 15 languages, with MultiNLI to train on."""
