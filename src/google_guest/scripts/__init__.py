"""The metadata script runner: startup and shutdown scripts, and specialize on Windows.

``events`` says which keys an event has and how long it may take, ``lookup`` finds the scripts in
metadata, ``script_file`` prepares a file, ``storage_url`` and ``download`` fetch what ``-url`` keys
name, ``launch`` starts it, ``output`` turns its bytes into log lines, ``result`` tells machines how
it went, and ``runner`` puts them together. Every part is imported when it is needed: a boot without
scripts pays for none of them.
"""
