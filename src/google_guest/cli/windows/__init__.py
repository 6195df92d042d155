"""Programs that exist on Windows only."""
