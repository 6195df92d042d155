/* The connection to the service: never blocks longer than its deadline, never raises a signal. */
#include "shim.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t monotonic_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* No service here (stopped, a chroot, a sandbox), or one that has no time for us. */
static enum outcome failure(int error)
{
    switch (error) {
    case EAGAIN: /* the backlog is full */
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
        return BUSY;
    default:
        return UNREACHABLE;
    }
}

/* Whether the service runs as root: a socket that somebody else put there is not believed. */
static bool is_trusted(int fd)
{
#ifdef __FreeBSD__
    uid_t uid;
    gid_t gid;
    return getpeereid(fd, &uid, &gid) == 0 && uid == OSLOGIN_TRUSTED_UID;
#else
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && size == sizeof peer &&
           peer.uid == OSLOGIN_TRUSTED_UID;
#endif
}

enum outcome open_connection(struct connection *connection)
{
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    _Static_assert(sizeof OSLOGIN_NSS_SOCKET <= sizeof address.sun_path, "path of the socket");
    memcpy(address.sun_path, OSLOGIN_NSS_SOCKET, sizeof OSLOGIN_NSS_SOCKET);

    int64_t now = monotonic_ns();
    connection->request_id = (uint32_t)now;
    connection->deadline = now + (int64_t)OSLOGIN_DEADLINE_MS * 1000000;
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection->fd < 0)
        return failure(errno);
    int done;
    do
        done = connect(connection->fd, (const struct sockaddr *)&address, sizeof address);
    while (done != 0 && errno == EINTR);
    enum outcome outcome = done == 0 ? FOUND : failure(errno);
    if (outcome == FOUND && !is_trusted(connection->fd))
        outcome = UNREACHABLE;
    if (outcome != FOUND)
        close_connection(connection);
    return outcome;
}

void close_connection(struct connection *connection)
{
    (void)close(connection->fd);
    connection->fd = -1;
}

/* Waits until the socket is ready; BUSY at the deadline. */
static enum outcome await(const struct connection *connection, short events)
{
    for (;;) {
        int64_t left = connection->deadline - monotonic_ns();
        if (left <= 0)
            return BUSY;
        struct pollfd waiting = {.fd = connection->fd, .events = events};
        int ready = poll(&waiting, 1, (int)((left + 999999) / 1000000));
        if (ready > 0)
            return FOUND;
        if (ready < 0 && errno != EINTR)
            return failure(errno);
    }
}

/* What became of a send or receive that moved nothing: FOUND means try again. */
static enum outcome retry(const struct connection *connection, short events)
{
    if (errno == EINTR)
        return monotonic_ns() < connection->deadline ? FOUND : BUSY;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return await(connection, events);
    return failure(errno);
}

enum outcome send_all(struct connection *connection, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t sent = send(connection->fd, at, size, MSG_NOSIGNAL);
        if (sent >= 0) {
            at += sent;
            size -= (size_t)sent;
            continue;
        }
        enum outcome outcome = retry(connection, POLLOUT);
        if (outcome != FOUND)
            return outcome;
    }
    return FOUND;
}

enum outcome receive_all(struct connection *connection, void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        ssize_t got = recv(connection->fd, at, size, 0);
        if (got == 0)
            return UNREACHABLE;
        if (got > 0) {
            at += got;
            size -= (size_t)got;
            continue;
        }
        enum outcome outcome = retry(connection, POLLIN);
        if (outcome != FOUND)
            return outcome;
    }
    return FOUND;
}
