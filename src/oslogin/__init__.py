"""OS Login: Google identities as accounts of this machine."""
