"""What googet does with packages: one module for each thing that a person can ask for.

Every operation takes a :class:`~googet.operations.session.Session` and returns whether all of it
succeeded. Operations print what belongs to the user on the session's screen and log everything
else; they raise ``GuestError`` for what ends the whole command.
"""
