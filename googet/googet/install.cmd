@echo off
rem The install step of googet itself, on its own interpreter; "remove" is the uninstall step.
setlocal
set "python=%ProgramData%\GooGet\python\python.exe"
if exist "%python%" goto run
>&2 echo googet: %python% is missing
exit /b 1
:run
"%python%" -I -B -m googet.cli.installation %*
exit /b %ERRORLEVEL%
