/*
 * The parts of the name service object and what they tell each other.
 *
 * The object lives in every process of the machine: it allocates nothing, takes no lock, keeps no
 * state between calls but the cursors of an enumeration (one of each thread), and links to libc only.
 */
#ifndef OSLOGIN_SHIM_H
#define OSLOGIN_SHIM_H

#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#if defined(__has_include)
#if __has_include("paths.h")
#include "paths.h"
#endif
#endif
#ifndef OSLOGIN_CACHE_FILE
#define OSLOGIN_CACHE_FILE "/etc/oslogin/identity.v1.cache"
#endif
#ifndef OSLOGIN_NSS_SOCKET
#define OSLOGIN_NSS_SOCKET "/run/google-oslogin/nss.sock"
#endif
#ifndef OSLOGIN_PASSWD_FILE
#define OSLOGIN_PASSWD_FILE "/etc/passwd"
#endif
#ifndef OSLOGIN_NSS_BYPASS
#define OSLOGIN_NSS_BYPASS "GOOGLE_OSLOGIN_NSS_BYPASS"
#endif

/* Who must own the cache file and run the service; only builds for tests have another. */
#ifndef OSLOGIN_TRUSTED_UID
#define OSLOGIN_TRUSTED_UID 0
#endif
/* The time that one question to the service may take. */
#ifndef OSLOGIN_DEADLINE_MS
#define OSLOGIN_DEADLINE_MS 5000
#endif

enum {
    USER_NAME_LIMIT = 32,
    GROUP_NAME_LIMIT = 64,
    TEXT_LIMIT = 255,            /* home, shell, gecos */
    MEMBERS_LIMIT = 65535,       /* of one group */
    GIDS_LIMIT = 1024,           /* of one user in the file */
    REPLY_GIDS_LIMIT = 16383,    /* of one user in a reply */
    REPLY_LIMIT = 1024 * 1024,   /* bytes of a reply */
};

enum outcome {
    FOUND,
    ABSENT,       /* an answer: there is none */
    SHORT_BUFFER, /* the caller has to come again with more room */
    UNREACHABLE,  /* nobody here to ask, or nothing to trust */
    BUSY,         /* an outage: ask again later */
};

/* What is looked for.  AFTER is the first name that sorts behind `name`. */
struct key {
    enum { BY_NAME, BY_ID, AFTER } how;
    const char *name;
    size_t length;
    uint32_t id;
};

/* The caller's memory for the strings of a record. */
struct room {
    char *at;
    size_t left;
};

/* The group ids of a user on their way into glibc's array (see initgroups_dyn). */
struct gid_list {
    gid_t **array;
    long *size;
    long used;
    long limit; /* <= 0: none */
    gid_t skip;
};

/* names.c: the rules that need no system call. */
bool is_user_name(const char *name, size_t length);
bool is_group_name(const char *name, size_t length);
bool is_user_id(uint32_t uid);
bool is_group_id(uint32_t gid);

/* groups.c */
enum outcome add_gid(struct gid_list *list, gid_t gid);
bool is_local_user(const char *name, size_t length);

/* Takes `size` bytes that suit a type of `alignment` from the start of the room; NULL without. */
void *take_aligned(struct room *room, size_t size, size_t alignment);

/* identity_cache.c.  A user's gids go to `gids` unless it is NULL. */
enum outcome cached_user(const struct key *key, struct passwd *user, struct room room,
                         struct gid_list *gids);
enum outcome cached_group(const struct key *key, struct group *group, struct room room);

/* connection.c: one connection to the service, with the deadline of everything done on it. */
struct connection {
    int fd;
    uint32_t request_id;
    int64_t deadline; /* ns of the monotonic clock */
};
enum outcome open_connection(struct connection *connection);
void close_connection(struct connection *connection);
enum outcome send_all(struct connection *connection, const void *data, size_t size);
enum outcome receive_all(struct connection *connection, void *data, size_t size);

/* protocol.c: questions to the service. */
enum outcome asked_user(const struct key *key, struct passwd *user, struct room room);
enum outcome asked_group(const struct key *key, struct group *group, struct room room);
enum outcome asked_gids(const struct key *key, struct gid_list *gids);

/* Numbers of the file and of the protocol are little-endian, at any alignment. */
static inline uint32_t get16(const unsigned char *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8;
}

static inline uint32_t get32(const unsigned char *from)
{
    return get16(from) | get16(from + 2) << 16;
}

static inline void put16(unsigned char *to, uint32_t value)
{
    to[0] = (unsigned char)value;
    to[1] = (unsigned char)(value >> 8);
}

static inline void put32(unsigned char *to, uint32_t value)
{
    put16(to, value);
    put16(to + 2, value >> 16);
}

#endif
