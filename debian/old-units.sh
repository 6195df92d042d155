# Daemons of the Python era. Their programs are gone; what can be left is a process, and a link that
# enables the unit.
etc_systemd="${DPKG_ROOT:-}/etc/systemd/system"

# is_left UNIT: a link enables the unit, and no package brings it any more.
is_left() {
	for folder in /lib /usr/lib /etc; do
		if [ -f "${DPKG_ROOT:-}$folder/systemd/system/$1.service" ]; then
			return 1
		fi
	done
	for link in "$etc_systemd"/*.wants/"$1.service"; do
		if [ -L "$link" ]; then
			return 0
		fi
	done
	return 1
}

disable_left() {
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then
		deb-systemd-invoke stop "$1.service" >/dev/null 2>&1 || true
	fi
	rm -f "$etc_systemd"/*.wants/"$1.service" 2>/dev/null || true
}

if [ "$1" = configure ]; then
	for unit in google-accounts-daemon google-clock-skew-daemon google-instance-setup \
		google-ip-forwarding-daemon google-network-daemon google-network-setup; do
		if is_left "$unit"; then
			disable_left "$unit"
		fi
	done
fi
