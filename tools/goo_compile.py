"""Compiles the modules of folders to byte code that is never compared with them again (PEP 552).

`tools/goo_bytecode.py` runs this in a CPython of the Windows packages' version. The folders named
by its arguments get `__pycache__` folders; standard output names the modules that do not compile,
each with the number of its folder in front.
"""

import os
import py_compile
import sys


def compile_folder(top: str) -> list[str]:
    """Compiles every module; the names of those that are no Python of this version."""
    refused = []
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            if not name.endswith(".py"):
                continue
            path = os.path.join(folder, name)
            shown = os.path.relpath(path, top).replace(os.sep, "/")
            tag = sys.implementation.cache_tag
            target = os.path.join(folder, "__pycache__", f"{name[:-3]}.{tag}.pyc")
            try:
                py_compile.compile(
                    path,
                    cfile=target,
                    dfile=shown,
                    doraise=True,
                    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                )
            except py_compile.PyCompileError:
                refused.append(shown)
    return refused


if __name__ == "__main__":
    for number, named in enumerate(sys.argv[1:]):
        for module in compile_folder(named):
            print(number, module)
