@echo off
rem install.cmd VERSION [remove]: makes this version of the library the one that programs use, or
rem ends that. The library is named, because until then no program finds it.
setlocal
set "base=%ProgramW6432%"
if "%base%"=="" set "base=%ProgramFiles%"
set "base=%base%\Google\Compute Engine"
set "python=%base%\agent\python\python.exe"
if exist "%python%" goto run
>&2 echo google-guest-library: %python% is missing; install google-guest-python-runtime
exit /b 1
:run
set "code=import sys; sys.path.insert(0, sys.argv[1]); import google_guest.cli.windows.install as step"
"%python%" -I -B -c "%code%; sys.exit(step.main(sys.argv[2:]))" "%base%\agent\lib\%~1" google-guest-library %2
exit /b %ERRORLEVEL%
