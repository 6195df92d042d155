"""The shared library of the Compute Engine guest environment.

Metadata and configuration go in, a plan comes out, the system is changed to match. Rooms, from the
bottom: ``system`` (the only code that touches the operating system), ``changes``, ``metadata``,
``config``, ``state``, ``logs``, then ``features`` and their ``catalog``, then ``agent`` and
``scripts``, and at the top ``cli``. A module imports only from rooms below its own.
"""
