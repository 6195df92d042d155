# Runs the metadata scripts of an event (startup, shutdown, specialize) and ends with their exit
# code. Instance setup looks for this file first.
$runner = Join-Path $PSScriptRoot '..\metadata_scripts\GCEMetadataScripts.exe'
if (-not (Test-Path -LiteralPath $runner)) {
  [Console]::Error.WriteLine("$runner is missing; install google-compute-engine-metadata-scripts")
  exit 1
}
& $runner @args
exit $LASTEXITCODE
