@echo off
rem Tries whether Python starts here. Services of ours that run are started again with it; without
rem a library there is none.
setlocal
set "base=%ProgramW6432%"
if "%base%"=="" set "base=%ProgramFiles%"
set "base=%base%\Google\Compute Engine"
set "python=%base%\agent\python\python.exe"
if exist "%python%" goto try
>&2 echo google-guest-python-runtime: %python% is missing
exit /b 1
:try
"%python%" -I -B -c "import ctypes, ssl, sqlite3"
if errorlevel 1 goto broken
if not exist "%base%\agent\python\Lib\site-packages\google-guest.pth" exit /b 0
"%python%" -I -B -m google_guest.cli.windows.install google-guest-python-runtime
exit /b %ERRORLEVEL%
:broken
>&2 echo google-guest-python-runtime: Python does not start on this Windows; version 10 or Server 2016 is needed
exit /b 1
