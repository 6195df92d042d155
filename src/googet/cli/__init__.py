"""The programs googet, goopack and gooserve: arguments, printing and exit codes."""
