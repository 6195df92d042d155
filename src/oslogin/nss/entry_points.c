/*
 * What the C library calls, for two services of one object: `oslogin` looks into the identity cache
 * and asks the service; `cache_oslogin` looks into the cache only, and enumerates.
 */
#include "shim.h"

#include <errno.h>
#include <nss.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

enum service { CACHE_ONLY, WITH_SERVICE };

/* What a call must leave as it found it. */
struct caller {
    int error;
    int cancel_state;
};

/* Where a thread's enumeration is: behind this name; empty before the first. */
struct cursor {
    unsigned char length;
    char name[GROUP_NAME_LIMIT + 1];
};

/*
 * In the memory that each thread has from its start (initial-exec): the general model would allocate
 * at the first use, inside of the call.
 */
static _Thread_local struct cursor user_cursor, group_cursor;

/* The service itself, and what it starts, must never ask the service. */
static bool is_bypassed(void)
{
#ifdef __FreeBSD__
    return !issetugid() && getenv(OSLOGIN_NSS_BYPASS) != NULL;
#else
    return secure_getenv(OSLOGIN_NSS_BYPASS) != NULL;
#endif
}

/* A thread that is cancelled inside of a call would leave a descriptor open. */
static struct caller enter(void)
{
    struct caller caller = {.error = errno};
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &caller.cancel_state);
    return caller;
}

static void leave(const struct caller *caller)
{
    (void)pthread_setcancelstate(caller->cancel_state, NULL);
    errno = caller->error;
}

/* ENOENT reads as "no such entry" where glibc hands errno on, EAGAIN as an outage. */
static enum nss_status status_of(enum outcome outcome, int *errnop)
{
    switch (outcome) {
    case FOUND:
        return NSS_STATUS_SUCCESS;
    case SHORT_BUFFER:
        *errnop = ERANGE;
        return NSS_STATUS_TRYAGAIN;
    case BUSY:
        *errnop = EAGAIN;
        return NSS_STATUS_TRYAGAIN;
    case UNREACHABLE:
        *errnop = ENOENT;
        return NSS_STATUS_UNAVAIL;
    default:
        *errnop = ENOENT;
        return NSS_STATUS_NOTFOUND;
    }
}

static bool is_final(enum outcome outcome, enum service service)
{
    return service == CACHE_ONLY || outcome == FOUND || outcome == SHORT_BUFFER;
}

/* The length of a name that a call brings; too long ones are not measured. */
static size_t length_of(const char *name)
{
    return name == NULL ? 0 : strnlen(name, GROUP_NAME_LIMIT + 1);
}

static struct key key_of_name(const char *name)
{
    return (struct key){.how = BY_NAME, .name = name, .length = length_of(name)};
}

static struct key key_of_id(uint32_t id)
{
    return (struct key){.how = BY_ID, .id = id};
}

static enum nss_status find_user(enum service service, struct key key, struct passwd *user,
                                 char *buffer, size_t size, int *errnop)
{
    bool possible = key.how == BY_ID ? is_user_id(key.id) : is_user_name(key.name, key.length);
    if (!possible || is_bypassed())
        return status_of(ABSENT, errnop);
    struct room room = {buffer, size};
    struct caller caller = enter();
    enum outcome outcome = cached_user(&key, user, room, NULL);
    if (!is_final(outcome, service))
        outcome = asked_user(&key, user, room);
    leave(&caller);
    return status_of(outcome, errnop);
}

static enum nss_status find_group(enum service service, struct key key, struct group *group,
                                  char *buffer, size_t size, int *errnop)
{
    bool possible = key.how == BY_ID ? is_group_id(key.id) : is_group_name(key.name, key.length);
    if (!possible || is_bypassed())
        return status_of(ABSENT, errnop);
    struct room room = {buffer, size};
    struct caller caller = enter();
    enum outcome outcome = cached_group(&key, group, room);
    if (!is_final(outcome, service))
        outcome = asked_group(&key, group, room);
    leave(&caller);
    return status_of(outcome, errnop);
}

static enum nss_status find_gids(enum service service, const char *name, gid_t skip, long *start,
                                 long *size, gid_t **array, long limit, int *errnop)
{
    struct key key = key_of_name(name);
    if (!is_user_name(name, key.length) || is_bypassed())
        return status_of(ABSENT, errnop);
    char scratch[USER_NAME_LIMIT + 3 * TEXT_LIMIT + 8];
    struct passwd user;
    struct gid_list gids = {array, size, *start, limit, skip};
    struct caller caller = enter();
    enum outcome outcome =
        cached_user(&key, &user, (struct room){scratch, sizeof scratch}, &gids);
    if (!is_final(outcome, service)) {
        gids.used = *start;
        outcome = is_local_user(name, key.length) ? ABSENT : asked_gids(&key, &gids);
    }
    if (outcome == FOUND)
        *start = gids.used; /* else what was added is not theirs */
    leave(&caller);
    return status_of(outcome, errnop);
}

static struct key key_of_cursor(const struct cursor *cursor)
{
    return (struct key){.how = AFTER, .name = cursor->name, .length = cursor->length};
}

static void advance(struct cursor *cursor, const char *name)
{
    cursor->length = (unsigned char)strnlen(name, GROUP_NAME_LIMIT);
    memcpy(cursor->name, name, cursor->length);
}

static enum nss_status next_user(struct passwd *user, char *buffer, size_t size, int *errnop)
{
    struct key key = key_of_cursor(&user_cursor);
    if (is_bypassed())
        return status_of(ABSENT, errnop);
    struct caller caller = enter();
    enum outcome outcome = cached_user(&key, user, (struct room){buffer, size}, NULL);
    if (outcome == FOUND)
        advance(&user_cursor, user->pw_name);
    leave(&caller);
    return status_of(outcome, errnop);
}

static enum nss_status next_group(struct group *group, char *buffer, size_t size, int *errnop)
{
    struct key key = key_of_cursor(&group_cursor);
    if (is_bypassed())
        return status_of(ABSENT, errnop);
    struct caller caller = enter();
    enum outcome outcome = cached_group(&key, group, (struct room){buffer, size});
    if (outcome == FOUND)
        advance(&group_cursor, group->gr_name);
    leave(&caller);
    return status_of(outcome, errnop);
}

#define LOOKUPS(prefix, service)                                                                  \
    EXPORTED enum nss_status prefix##getpwnam_r(const char *name, struct passwd *user,            \
                                                char *buffer, size_t size, int *errnop);          \
    enum nss_status prefix##getpwnam_r(const char *name, struct passwd *user, char *buffer,       \
                                       size_t size, int *errnop)                                  \
    {                                                                                             \
        return find_user(service, key_of_name(name), user, buffer, size, errnop);                 \
    }                                                                                             \
    EXPORTED enum nss_status prefix##getpwuid_r(uid_t uid, struct passwd *user, char *buffer,     \
                                                size_t size, int *errnop);                        \
    enum nss_status prefix##getpwuid_r(uid_t uid, struct passwd *user, char *buffer, size_t size, \
                                       int *errnop)                                               \
    {                                                                                             \
        return find_user(service, key_of_id(uid), user, buffer, size, errnop);                    \
    }                                                                                             \
    EXPORTED enum nss_status prefix##getgrnam_r(const char *name, struct group *group,            \
                                                char *buffer, size_t size, int *errnop);          \
    enum nss_status prefix##getgrnam_r(const char *name, struct group *group, char *buffer,       \
                                       size_t size, int *errnop)                                  \
    {                                                                                             \
        return find_group(service, key_of_name(name), group, buffer, size, errnop);               \
    }                                                                                             \
    EXPORTED enum nss_status prefix##getgrgid_r(gid_t gid, struct group *group, char *buffer,     \
                                                size_t size, int *errnop);                        \
    enum nss_status prefix##getgrgid_r(gid_t gid, struct group *group, char *buffer, size_t size, \
                                       int *errnop)                                               \
    {                                                                                             \
        return find_group(service, key_of_id(gid), group, buffer, size, errnop);                  \
    }                                                                                             \
    EXPORTED enum nss_status prefix##initgroups_dyn(const char *name, gid_t skip, long *start,    \
                                                    long *size, gid_t **array, long limit,        \
                                                    int *errnop);                                 \
    enum nss_status prefix##initgroups_dyn(const char *name, gid_t skip, long *start, long *size, \
                                           gid_t **array, long limit, int *errnop)                \
    {                                                                                             \
        return find_gids(service, name, skip, start, size, array, limit, errnop);                 \
    }

/* `kind` is pw or gr; `next` yields the following record. */
#define ENUMERATION(prefix, kind, record, rewound, next)                                          \
    EXPORTED enum nss_status prefix##set##kind##ent(int stay_open);                               \
    enum nss_status prefix##set##kind##ent(int stay_open)                                         \
    {                                                                                             \
        (void)stay_open;                                                                          \
        rewound;                                                                                  \
        return NSS_STATUS_SUCCESS;                                                                \
    }                                                                                             \
    EXPORTED enum nss_status prefix##end##kind##ent(void);                                        \
    enum nss_status prefix##end##kind##ent(void)                                                  \
    {                                                                                             \
        rewound;                                                                                  \
        return NSS_STATUS_SUCCESS;                                                                \
    }                                                                                             \
    EXPORTED enum nss_status prefix##get##kind##ent_r(struct record *entry, char *buffer,         \
                                                      size_t size, int *errnop);                  \
    enum nss_status prefix##get##kind##ent_r(struct record *entry, char *buffer, size_t size,     \
                                             int *errnop)                                         \
    {                                                                                             \
        (void)entry, (void)buffer, (void)size;                                                    \
        return next;                                                                              \
    }

LOOKUPS(_nss_oslogin_, WITH_SERVICE)
LOOKUPS(_nss_cache_oslogin_, CACHE_ONLY)
ENUMERATION(_nss_oslogin_, pw, passwd, (void)0, status_of(ABSENT, errnop))
ENUMERATION(_nss_oslogin_, gr, group, (void)0, status_of(ABSENT, errnop))
ENUMERATION(_nss_cache_oslogin_, pw, passwd, user_cursor.length = 0,
            next_user(entry, buffer, size, errnop))
ENUMERATION(_nss_cache_oslogin_, gr, group, group_cursor.length = 0,
            next_group(entry, buffer, size, errnop))

#ifdef __FreeBSD__
#include "freebsd.inc"
#endif
