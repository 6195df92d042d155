"""The metadata server as the guest sees it.

``client`` asks (one-shot reads, one long poll, guest attributes), ``watcher`` follows the tree for
as long as the process lives, ``tree`` and ``attributes`` turn the answer into immutable typed
values. Nothing here writes to the machine. The package itself imports none of them, so that code
which only needs the types does not load sockets.
"""
