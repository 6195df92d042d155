"""Builds the library for tools that know no other way in; what is built is said in setup.cfg.

The text of VERSION travels with the library as ``google_guest/VERSION``, because the version that
setuptools records is rewritten by PEP 440 (``20261124.00`` becomes ``20261124.0``).
"""

import os

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithVersionText(build_py):
    def _version_text(self):
        return os.path.join(self.build_lib, "google_guest", "VERSION")

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            self.copy_file("VERSION", self._version_text(), preserve_mode=False)

    def get_outputs(self, include_bytecode=1):
        return super().get_outputs(include_bytecode) + [self._version_text()]


setup(cmdclass={"build_py": BuildWithVersionText})
