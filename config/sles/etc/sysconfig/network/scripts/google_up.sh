#!/bin/sh
# Gives the machine the name in its metadata when its first network interface is up; see
# google_set_hostname(8). wicked runs it where ifcfg-INTERFACE has
#     POST_UP_SCRIPT="compat:suse:google_up.sh"
# as: google_up.sh CONFIGURATION INTERFACE [-o OPTION...], or with the interface alone.

case ${2-} in
'' | -*) interface=${1-} ;;
*) interface=$2 ;;
esac
if [ -n "$interface" ] && [ -x /usr/bin/google_set_hostname ]; then
    /usr/bin/google_set_hostname --from-metadata --interface "$interface" || :
fi
exit 0
