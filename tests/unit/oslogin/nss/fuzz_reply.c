/* libFuzzer: the first byte chooses the question and the room, the rest is what the service says. */
#include "shim.h"

#include <nss.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const unsigned char *reply;
static size_t reply_size;
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

/* In the place of connection.c: what the service would send is all there at once. */
enum outcome open_connection(struct connection *connection)
{
    connection->request_id = 0x01020304;
    return FOUND;
}

void close_connection(struct connection *connection)
{
    connection->fd = -1;
}

enum outcome send_all(struct connection *connection, const void *data, size_t size)
{
    unsigned char sink[256];
    (void)connection;
    memcpy(sink, data, size);
    return FOUND;
}

enum outcome receive_all(struct connection *connection, void *data, size_t size)
{
    (void)connection;
    if (size > reply_size)
        return UNREACHABLE;
    memcpy(data, reply, size);
    reply += size;
    reply_size -= size;
    return FOUND;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    if (size < 1)
        return 0;
    reply = data + 1;
    reply_size = size - 1;
    struct key name = {.how = BY_NAME, .name = "alice", .length = 5};
    struct key id = {.how = BY_ID, .id = 2000};
    struct passwd user;
    struct group group;
    size_t room = (size_t)(data[0] >> 3) * 16 + (data[0] >> 3);
    char *buffer = malloc(room);
    long used = 1, length = 1;
    gid_t *gids = malloc(sizeof *gids);
    gids[0] = 7;
    struct gid_list list = {&gids, &length, used, 64, 1};
    switch (data[0] & 7) {
    case 0:
    case 1:
        if (asked_user(data[0] & 1 ? &id : &name, &user, (struct room){buffer, room}) == FOUND &&
            strlen(user.pw_name) + strlen(user.pw_passwd) + strlen(user.pw_gecos) +
                    strlen(user.pw_dir) + strlen(user.pw_shell) + 5 > room)
            abort();
        break;
    case 2:
    case 3:
        if (asked_group(data[0] & 1 ? &id : &name, &group, (struct room){buffer, room}) == FOUND) {
            for (char **member = group.gr_mem; *member != NULL; member++) {
                if (strlen(*member) > 32 || member < (char **)(void *)buffer)
                    abort();
            }
        }
        break;
    default:
        (void)asked_gids(&name, &list);
        if (list.used > 64)
            abort();
    }
    free(gids);
    free(buffer);
    return 0;
}
