"""Where texts come from: files of every supported format, hub datasets, Debian's descriptions."""
