"""What the tiers above the unit tests stand on: cached roots, booted beds, the emulator in front.

Standard library only, so that `tools/instance` runs with the distribution's Python and nothing
else.  `HOST_PACKAGES` beside this file lists the Debian packages the host must have.
"""
