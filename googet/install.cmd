@echo off
rem The install step of a package, or with "remove" behind its name the uninstall step; the steps
rem are in google_guest.installation.
setlocal
set "base=%ProgramW6432%"
if "%base%"=="" set "base=%ProgramFiles%"
set "base=%base%\Google\Compute Engine"
set "python=%base%\agent\python\python.exe"
if exist "%python%" goto run
>&2 echo %1: %python% is missing; install google-guest-python-runtime
exit /b 1
:run
"%python%" -I -B -m google_guest.cli.windows.install %*
exit /b %ERRORLEVEL%
