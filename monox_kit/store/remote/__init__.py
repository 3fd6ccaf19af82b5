"""Stores at URLs: written where objects are put only if absent, and fetched into folders."""
