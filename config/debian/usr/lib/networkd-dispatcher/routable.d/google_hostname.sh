#!/bin/sh
# Gives the machine the name in its metadata when its first network interface is routable; see
# google_set_hostname(8). networkd-dispatcher says in IFACE which interface became so.

if [ -n "${IFACE-}" ] && [ -x /usr/bin/google_set_hostname ]; then
    /usr/bin/google_set_hostname --from-metadata --interface "$IFACE" || :
fi
exit 0
