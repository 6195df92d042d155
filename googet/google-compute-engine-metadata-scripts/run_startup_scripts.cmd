@echo off
rem Run by the task GCEStartup. The runner goes on by itself: whoever ends the task does not end it.
start "" "%~dp0GCEMetadataScripts.exe" startup
