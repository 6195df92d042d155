# Only when sshd accepts its configuration: a server that is not reloaded goes on as before.
reload_ssh() {
	if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ] && ! ischroot --default-true &&
		command -v sshd >/dev/null && sshd -t >/dev/null 2>&1; then
		deb-systemd-invoke reload ssh.service >/dev/null 2>&1 || true
	fi
}
