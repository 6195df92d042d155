"""The package manager of Windows guests: client, packer and repository server.

Works with Google's googet in every direction: archives, indexes, repository files, configuration,
lock, state database and command line. Runs on Linux and on Windows.
"""
