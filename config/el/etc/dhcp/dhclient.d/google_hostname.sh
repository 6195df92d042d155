#!/bin/sh
# Gives the machine the name that comes with a lease; see google_set_hostname(8).
#
# dhclient-script sources this file and calls the function for a new lease or for its end, so
# nothing here may exec or exit. dhclient has put new_host_name, new_ip_address and interface into
# the environment.

google_hostname_config() {
    # shellcheck disable=SC2154
    if [ -n "$new_host_name" ] && [ -x /usr/bin/google_set_hostname ]; then
        /usr/bin/google_set_hostname || :
    fi
}

google_hostname_restore() {
    # The name outlives the lease.
    :
}
