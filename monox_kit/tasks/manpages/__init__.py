"""Debian's manual pages and their translations; the task is to name a page's section."""
