/* The array of group ids that belongs to glibc, and who has an account of this machine's own. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *take_aligned(struct room *room, size_t size, size_t alignment)
{
    size_t gap = (alignment - (uintptr_t)room->at % alignment) % alignment;
    if (gap > room->left || size > room->left - gap)
        return NULL;
    char *taken = room->at + gap;
    room->at = taken + size;
    room->left -= gap + size;
    return taken;
}

/*
 * Appends a gid unless it is there.  The array is glibc's, made by malloc, and the interface asks
 * the module to enlarge it: realloc is the one function of the allocator that the object imports.
 */
enum outcome add_gid(struct gid_list *list, gid_t gid)
{
    if (gid == list->skip)
        return FOUND;
    for (long i = 0; i < list->used; i++) {
        if ((*list->array)[i] == gid)
            return FOUND;
    }
    if (list->limit > 0 && list->used >= list->limit)
        return FOUND;
    if (list->used >= *list->size) {
        long size = *list->size < 8 ? 16 : *list->size * 2;
        if (list->limit > 0 && size > list->limit)
            size = list->limit;
        gid_t *larger = realloc(*list->array, (size_t)size * sizeof(gid_t));
        if (larger == NULL)
            return BUSY;
        *list->array = larger;
        *list->size = size;
    }
    (*list->array)[list->used++] = gid;
    return FOUND;
}

/*
 * Whether /etc/passwd has the name.  glibc asks every service for the groups of every user, also
 * of root at boot, when nobody can answer: those questions end here.
 */
bool is_local_user(const char *name, size_t length)
{
    int fd = open(OSLOGIN_PASSWD_FILE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    char block[512];
    size_t matched = 0; /* bytes of the line that agree so far with "name:" */
    bool matching = true, local = false;
    for (;;) {
        ssize_t got = read(fd, block, sizeof block);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        for (ssize_t i = 0; i < got && !local; i++) {
            if (block[i] == '\n') {
                matching = true;
                matched = 0;
            } else if (matching && matched == length) {
                local = block[i] == ':';
                matching = false;
            } else if (matching) {
                matching = block[i] == name[matched++];
            }
        }
        if (local)
            break;
    }
    (void)close(fd);
    return local;
}
