/* Objects that are built beside a newer C library than the target's: since glibc 2.33 fstat and lstat
 * are functions with names of that version, where before they called these two, which are still
 * there. Only builds for another distribution include this (google-guest-environment.spec). */

#ifndef OLDER_LIBC_H
#define OLDER_LIBC_H

#include <sys/stat.h>

#if defined(__x86_64__)
#define OLDER_LIBC_STAT 1
#elif defined(__aarch64__)
#define OLDER_LIBC_STAT 0
#else
#error "no older name of fstat is known for this architecture"
#endif

extern int __fxstat(int version, int descriptor, struct stat *result);
extern int __lxstat(int version, const char *path, struct stat *result);

#define fstat(descriptor, result) __fxstat(OLDER_LIBC_STAT, descriptor, result)
#define lstat(path, result) __lxstat(OLDER_LIBC_STAT, path, result)

#endif
