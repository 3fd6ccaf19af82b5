"""The whole pipeline on real text: one command from an English classifier to a multilingual one."""
