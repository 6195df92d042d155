"""The features of Linux instances, one file each."""
