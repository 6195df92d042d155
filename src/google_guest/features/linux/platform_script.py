"""Features that run one program of the system configuration package when the machine starts.

The program is run once per boot, before metadata is there, and where it is not installed there is
nothing to do. Each such feature is a file beside this one with its switch in ``[InstanceSetup]``.
"""

from __future__ import annotations

from google_guest.changes.platform import RunCommand
from google_guest.features import Decision, Feature, Frequency, Inputs, Plan, Stage
from google_guest.programs import find_program


def platform_script(*, name: str, summary: str, program: str, switch: str) -> Feature:
    """Return the feature ``name`` that runs ``program`` unless ``[InstanceSetup] switch`` is false.

    ``summary`` says in the imperative what the program does.
    """

    def enabled(inputs: Inputs) -> Decision:
        layer = inputs.config.origin("instance_setup", switch)
        if not getattr(inputs.config.instance_setup, switch):
            return Decision(False, f"[InstanceSetup] {switch} = false", layer)
        if find_program(inputs.system.files, program) is None:
            return Decision(False, f"{program} is not installed")
        return Decision(True, f"[InstanceSetup] {switch} = true", layer)

    def plan(inputs: Inputs) -> Plan:
        path = find_program(inputs.system.files, program) or program
        return Plan((RunCommand((path,), summary, about=program),))

    return Feature(
        name=name,
        summary=summary,
        enabled=enabled,
        plan=plan,
        stage=Stage.EARLY,
        frequency=Frequency.ONCE_PER_BOOT,
        live_only=True,
    )
