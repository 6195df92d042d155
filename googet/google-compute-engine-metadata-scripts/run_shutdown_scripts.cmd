@echo off
rem Run by the group policy at shutdown, which waits for the scripts.
"%~dp0GCEMetadataScripts.exe" shutdown
