#!/bin/sh
# Gives the machine the name in its metadata when its first network interface comes up; see
# google_set_hostname(8). NetworkManager runs it as: google_hostname.sh INTERFACE ACTION

if [ "${2-}" = up ] && [ -x /usr/bin/google_set_hostname ]; then
    /usr/bin/google_set_hostname --from-metadata --interface "$1" || :
fi
exit 0
