"""System configuration: the programs that hooks, udev and the agent run on this machine."""
