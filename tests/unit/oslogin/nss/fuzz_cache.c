/* libFuzzer: the input is the whole cache file; checksums are not compared in this build. */
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum nss_status _nss_cache_oslogin_getpwnam_r(const char *, struct passwd *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_getpwuid_r(uid_t, struct passwd *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_getgrnam_r(const char *, struct group *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_getgrgid_r(gid_t, struct group *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_setpwent(int);
enum nss_status _nss_cache_oslogin_setgrent(int);
enum nss_status _nss_cache_oslogin_getpwent_r(struct passwd *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_getgrent_r(struct group *, char *, size_t, int *);
enum nss_status _nss_cache_oslogin_initgroups_dyn(const char *, gid_t, long *, long *, gid_t **,
                                                  long, int *);

char fuzz_cache_file[64];
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (fuzz_cache_file[0] == 0)
        snprintf(fuzz_cache_file, sizeof fuzz_cache_file, "/dev/shm/oslogin-fuzz-%d", getpid());
    int fd = open(fuzz_cache_file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    close(fd);
    struct passwd user;
    struct group group;
    static const char *names[] = {"alice", "bob", "carol.d", "devs", "zed"};
    char *buffer = malloc(300);
    int error;
    for (unsigned i = 0; i < 5; i++) {
        if (_nss_cache_oslogin_getpwnam_r(names[i], &user, buffer, 300, &error) == 1 &&
            (strcmp(user.pw_name, names[i]) != 0 || strlen(user.pw_dir) > 255))
            abort();
        if (_nss_cache_oslogin_getgrnam_r(names[i], &group, buffer, 300, &error) == 1 &&
            strcmp(group.gr_name, names[i]) != 0)
            abort();
        long start = 0, room = 1;
        gid_t *gids = malloc(sizeof *gids);
        _nss_cache_oslogin_initgroups_dyn(names[i], 1, &start, &room, &gids, 100, &error);
        if (start > 100)
            abort();
        free(gids);
    }
    for (unsigned id = 2000; id < 2004; id++) {
        if (_nss_cache_oslogin_getpwuid_r(id, &user, buffer, 300, &error) == 1 && user.pw_uid != id)
            abort();
        if (_nss_cache_oslogin_getgrgid_r(id, &group, buffer, 300, &error) == 1 &&
            group.gr_gid != id)
            abort();
    }
    _nss_cache_oslogin_setpwent(0);
    _nss_cache_oslogin_setgrent(0);
    char last[80] = "";
    while (_nss_cache_oslogin_getpwent_r(&user, buffer, 300, &error) == 1) {
        if (strcmp(user.pw_name, last) <= 0)
            abort(); /* else it could go on for ever */
        strcpy(last, user.pw_name);
    }
    last[0] = 0;
    while (_nss_cache_oslogin_getgrent_r(&group, buffer, 300, &error) == 1) {
        if (strcmp(group.gr_name, last) <= 0)
            abort();
        strcpy(last, group.gr_name);
    }
    free(buffer);
    unlink(fuzz_cache_file);
    return 0;
}
