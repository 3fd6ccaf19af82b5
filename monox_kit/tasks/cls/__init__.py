"""CLS: reviews of books, DVDs and music, praise or blame, in four languages."""
