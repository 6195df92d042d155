/*
 * Calls the name service functions for the tests.
 *
 *   driver                 questions on standard input, one a line, fields by tabs:
 *                          SERVICE FUNCTION ARGUMENT SIZE; answers: STATUS ERRNO FIELD...
 *   driver threads N       N threads look up and enumerate until the input ends; prints wrong answers
 *   driver fork            forks in the middle of an enumeration; both print how many users they saw
 *   driver filtered        impossible names and ids under seccomp's strict mode: any call kills
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/seccomp.h>
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DECLARE(p)                                                                                \
    enum nss_status p##getpwnam_r(const char *, struct passwd *, char *, size_t, int *);          \
    enum nss_status p##getpwuid_r(uid_t, struct passwd *, char *, size_t, int *);                 \
    enum nss_status p##getpwent_r(struct passwd *, char *, size_t, int *);                        \
    enum nss_status p##setpwent(int);                                                             \
    enum nss_status p##endpwent(void);                                                            \
    enum nss_status p##getgrnam_r(const char *, struct group *, char *, size_t, int *);           \
    enum nss_status p##getgrgid_r(gid_t, struct group *, char *, size_t, int *);                  \
    enum nss_status p##getgrent_r(struct group *, char *, size_t, int *);                         \
    enum nss_status p##setgrent(int);                                                             \
    enum nss_status p##endgrent(void);                                                            \
    enum nss_status p##initgroups_dyn(const char *, gid_t, long *, long *, gid_t **, long, int *);
DECLARE(_nss_oslogin_)
DECLARE(_nss_cache_oslogin_)

struct service {
    enum nss_status (*pwnam)(const char *, struct passwd *, char *, size_t, int *);
    enum nss_status (*pwuid)(uid_t, struct passwd *, char *, size_t, int *);
    enum nss_status (*pwent)(struct passwd *, char *, size_t, int *);
    enum nss_status (*setpw)(int);
    enum nss_status (*endpw)(void);
    enum nss_status (*grnam)(const char *, struct group *, char *, size_t, int *);
    enum nss_status (*grgid)(gid_t, struct group *, char *, size_t, int *);
    enum nss_status (*grent)(struct group *, char *, size_t, int *);
    enum nss_status (*setgr)(int);
    enum nss_status (*endgr)(void);
    enum nss_status (*groups)(const char *, gid_t, long *, long *, gid_t **, long, int *);
};
#define SERVICE(p)                                                                                \
    {                                                                                             \
        p##getpwnam_r, p##getpwuid_r, p##getpwent_r, p##setpwent, p##endpwent, p##getgrnam_r,     \
            p##getgrgid_r, p##getgrent_r, p##setgrent, p##endgrent, p##initgroups_dyn             \
    }
static const struct service online = SERVICE(_nss_oslogin_), cached = SERVICE(_nss_cache_oslogin_);

/* Exactly `size` bytes, so that a sanitizer sees one byte more. */
static void user_question(const struct service *of, const char *function, const char *argument,
                          size_t size)
{
    struct passwd user;
    char *buffer = malloc(size);
    int error = 0;
    errno = 77;
    enum nss_status status;
    if (strcmp(function, "pwnam") == 0)
        status = of->pwnam(argument, &user, buffer, size, &error);
    else if (strcmp(function, "pwuid") == 0)
        status = of->pwuid((uid_t)strtoul(argument, NULL, 10), &user, buffer, size, &error);
    else
        status = of->pwent(&user, buffer, size, &error);
    printf("%d\t%d", status, errno == 77 ? error : -errno);
    if (status == NSS_STATUS_SUCCESS)
        printf("\t%s\t%s\t%u\t%u\t%s\t%s\t%s", user.pw_name, user.pw_passwd, user.pw_uid,
               user.pw_gid, user.pw_gecos, user.pw_dir, user.pw_shell);
    putchar('\n');
    free(buffer);
}

static void group_question(const struct service *of, const char *function, const char *argument,
                           size_t size)
{
    struct group group;
    char *buffer = malloc(size);
    int error = 0;
    errno = 77;
    enum nss_status status;
    if (strcmp(function, "grnam") == 0)
        status = of->grnam(argument, &group, buffer, size, &error);
    else if (strcmp(function, "grgid") == 0)
        status = of->grgid((gid_t)strtoul(argument, NULL, 10), &group, buffer, size, &error);
    else
        status = of->grent(&group, buffer, size, &error);
    printf("%d\t%d", status, errno == 77 ? error : -errno);
    if (status == NSS_STATUS_SUCCESS) {
        printf("\t%s\t%s\t%u", group.gr_name, group.gr_passwd, group.gr_gid);
        for (char **member = group.gr_mem; *member != NULL; member++)
            printf("\t%s", *member);
    }
    putchar('\n');
    free(buffer);
}

/* ARGUMENT is NAME,SKIP,LIMIT,SIZE of the array; it holds gid 7 at the start. */
static void gids_question(const struct service *of, char *argument)
{
    char *name = strsep(&argument, ",");
    gid_t skip = (gid_t)strtoul(strsep(&argument, ","), NULL, 10);
    long limit = strtol(strsep(&argument, ","), NULL, 10);
    long size = strtol(strsep(&argument, ","), NULL, 10), start = 1;
    gid_t *array = malloc((size_t)size * sizeof *array);
    array[0] = 7;
    int error = 0;
    errno = 77;
    enum nss_status status = of->groups(name, skip, &start, &size, &array, limit, &error);
    printf("%d\t%d", status, errno == 77 ? error : -errno);
    for (long i = 0; i < start; i++)
        printf("\t%u", array[i]);
    putchar('\n');
    free(array);
}

static void answer_questions(void)
{
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line;
        const struct service *of = strcmp(strsep(&rest, "\t"), "oslogin") == 0 ? &online : &cached;
        char *function = strsep(&rest, "\t"), *argument = strsep(&rest, "\t");
        size_t size = rest == NULL ? 4096 : strtoul(rest, NULL, 10);
        struct timespec before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        if (strcmp(function, "setpw") == 0)
            printf("%d\t0\n", of->setpw(0));
        else if (strcmp(function, "endpw") == 0)
            printf("%d\t0\n", of->endpw());
        else if (strcmp(function, "setgr") == 0)
            printf("%d\t0\n", of->setgr(0));
        else if (strcmp(function, "endgr") == 0)
            printf("%d\t0\n", of->endgr());
        else if (strcmp(function, "groups") == 0)
            gids_question(of, argument);
        else if (strncmp(function, "pw", 2) == 0)
            user_question(of, function, argument, size);
        else if (strncmp(function, "gr", 2) == 0)
            group_question(of, function, argument, size);
        else if (strcmp(function, "flush") == 0)
            fflush(stdout);
        clock_gettime(CLOCK_MONOTONIC, &after);
        if (strcmp(function, "flush") != 0)
            fprintf(stderr, "%ld\n", (after.tv_sec - before.tv_sec) * 1000000 +
                                         (after.tv_nsec - before.tv_nsec) / 1000);
    }
    free(line);
}

static atomic_bool stopped;
static atomic_long asked, wrong;

/* Users uN of every generation have uid 10000+N; the self-group has the same number. */
static void check_user(enum nss_status status, const struct passwd *user, unsigned number)
{
    char name[32], home[64];
    snprintf(name, sizeof name, "u%05u", number);
    snprintf(home, sizeof home, "/home/u%05u", number);
    if (status == NSS_STATUS_NOTFOUND && number >= 40)
        return; /* only the larger generation has it */
    if (status != NSS_STATUS_SUCCESS || strcmp(user->pw_name, name) != 0 ||
        user->pw_uid != 10000 + number || strcmp(user->pw_dir, home) != 0)
        atomic_fetch_add(&wrong, 1);
}

static void *look_up(void *seed)
{
    unsigned state = (unsigned)(uintptr_t)seed;
    char buffer[1024], name[32];
    struct passwd user;
    struct group group;
    int error;
    while (!atomic_load(&stopped)) {
        state = state * 1103515245u + 12345u;
        unsigned number = state / 65536 % 60;
        snprintf(name, sizeof name, "u%05u", number);
        check_user(cached.pwnam(name, &user, buffer, sizeof buffer, &error), &user, number);
        check_user(cached.pwuid(10000 + number, &user, buffer, sizeof buffer, &error), &user,
                   number);
        enum nss_status status = cached.grgid(10000 + number, &group, buffer, sizeof buffer, &error);
        if (status == NSS_STATUS_SUCCESS ? strcmp(group.gr_mem[0], name) != 0 : number < 40)
            atomic_fetch_add(&wrong, 1);
        unsigned seen = 0;
        cached.setpw(0);
        while (cached.pwent(&user, buffer, sizeof buffer, &error) == NSS_STATUS_SUCCESS)
            seen++;
        if (seen < 40 || seen > 60)
            atomic_fetch_add(&wrong, 1);
        atomic_fetch_add(&asked, 3);
    }
    return NULL;
}

static int run_threads(int count)
{
    pthread_t threads[64];
    for (int i = 0; i < count; i++)
        pthread_create(&threads[i], NULL, look_up, (void *)(uintptr_t)(i + 1));
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    atomic_store(&stopped, true);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("%ld\t%ld\n", atomic_load(&asked), atomic_load(&wrong));
    return atomic_load(&wrong) != 0;
}

static unsigned rest_of_users(void)
{
    struct passwd user;
    struct group group;
    char buffer[1024], other[1024];
    int error;
    unsigned seen = 0;
    while (cached.pwent(&user, buffer, sizeof buffer, &error) == NSS_STATUS_SUCCESS) {
        cached.grgid(user.pw_gid, &group, other, sizeof other, &error);
        seen++;
    }
    return seen;
}

static int run_fork(void)
{
    struct passwd user;
    char buffer[1024];
    int error;
    cached.setpw(0);
    for (int i = 0; i < 10; i++)
        cached.pwent(&user, buffer, sizeof buffer, &error);
    fflush(stdout);
    pid_t child = fork();
    printf("%u\n", rest_of_users());
    fflush(stdout);
    if (child == 0)
        _exit(0);
    int status;
    waitpid(child, &status, 0);
    return status;
}

static int run_filtered(void)
{
    static const char *names[] = {"*", "-x", "", ".", "..", "a b", "x:y", "a/b", "xyz$",
                                  "abcdefghijklmnopqrstuvwxyz1234567"};
    static const uint32_t ids[] = {0, 1, 999, 65534, 65535, 4294967295u};
    struct passwd user;
    struct group group;
    char buffer[256];
    int error, wrong_answers = 0;
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        long start = 0, size = 0;
        wrong_answers += online.pwnam(names[i], &user, buffer, 256, &error) != NSS_STATUS_NOTFOUND;
        wrong_answers += error != ENOENT;
        wrong_answers += cached.pwnam(names[i], &user, buffer, 256, &error) != NSS_STATUS_NOTFOUND;
        wrong_answers += online.groups(names[i], 0, &start, &size, NULL, 0, &error) !=
                         NSS_STATUS_NOTFOUND;
        if (strlen(names[i]) < 33) /* a group may have a longer name */
            wrong_answers += online.grnam(names[i], &group, buffer, 256, &error) !=
                             NSS_STATUS_NOTFOUND;
    }
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        wrong_answers += online.pwuid(ids[i], &user, buffer, 256, &error) != NSS_STATUS_NOTFOUND;
        wrong_answers += cached.pwuid(ids[i], &user, buffer, 256, &error) != NSS_STATUS_NOTFOUND;
        if (ids[i] < 1000 || ids[i] == 4294967295u)
            wrong_answers += online.grgid(ids[i], &group, buffer, 256, &error) !=
                             NSS_STATUS_NOTFOUND;
    }
    syscall(SYS_exit, wrong_answers);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "threads") == 0)
        return run_threads(atoi(argv[2]));
    if (argc > 1 && strcmp(argv[1], "fork") == 0)
        return run_fork();
    if (argc > 1 && strcmp(argv[1], "filtered") == 0)
        return run_filtered();
    answer_questions();
    return 0;
}
