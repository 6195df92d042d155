/*
 * The reader of the identity cache, /etc/oslogin/identity.v1.cache (format: identity_cache.py).
 *
 * Nothing in the file is believed before it is checked, and everything is checked where it is used:
 * the file is read with pread, so that one that is cut short or written over meanwhile is a bad
 * record at worst.  What is returned has passed its record's checksum and bears the key.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER = 192,
    HEADER_CHECKED = 188,
    FILE_LIMIT = 64 * 1024 * 1024,
    USERS_LIMIT = 262144,
    REAL_GROUPS_LIMIT = 65536,
    ALL_MEMBERS_LIMIT = 4194304,
    CLOUD_RUN = 8, /* flag: ids below 1000 are meant */
    USER = 48,     /* bytes of a record */
    GROUP = 32,
    MEMBER = 8,
    NUMBER = 4,
};

enum section { USERS, UIDS, GROUPS, GIDS, MEMBERS, GID_LISTS, STRINGS, SECTIONS };

struct identity_file {
    int fd;
    bool any_id;
    uint32_t offset[SECTIONS];
    uint32_t bytes[SECTIONS];
    uint32_t count[SECTIONS];
};

/* One of the two tables: its records by name, and its index by id. */
struct table {
    enum section records, index;
    uint32_t size;                            /* bytes of a record */
    uint32_t id_at, name_at, length_at;       /* of these fields in it */
    uint32_t name_limit;
};

static const struct table users = {USERS, UIDS, USER, 0, 8, 24, USER_NAME_LIMIT};
static const struct table groups = {GROUPS, GIDS, GROUP, 0, 4, 8, GROUP_NAME_LIMIT};

/* The checksum is linear: the entry of a byte is the sum of the entries of its bits. */
#define BIT(i, bit, value) ((i) & (bit) ? (uint32_t)(value) : 0)
#define CRC(i)                                                                                    \
    (BIT(i, 1, 0x77073096) ^ BIT(i, 2, 0xee0e612c) ^ BIT(i, 4, 0x076dc419) ^                      \
     BIT(i, 8, 0x0edb8832) ^ BIT(i, 16, 0x1db71064) ^ BIT(i, 32, 0x3b6e20c8) ^                    \
     BIT(i, 64, 0x76dc4190) ^ BIT(i, 128, 0xedb88320))
#define CRC4(i) CRC(i), CRC((i) + 1), CRC((i) + 2), CRC((i) + 3)
#define CRC16(i) CRC4(i), CRC4((i) + 4), CRC4((i) + 8), CRC4((i) + 12)
#define CRC64(i) CRC16(i), CRC16((i) + 16), CRC16((i) + 32), CRC16((i) + 48)
static const uint32_t crc_table[256] = {CRC64(0), CRC64(64), CRC64(128), CRC64(192)};

/* CRC-32 as zlib has it; starts with 0 and continues with its own result. */
static uint32_t crc32_of(uint32_t crc, const void *data, size_t size)
{
    const unsigned char *at = data;
    crc = ~crc;
    while (size-- > 0)
        crc = crc_table[(crc ^ *at++) & 255] ^ crc >> 8;
    return ~crc;
}

static bool crc_agrees(uint32_t computed, uint32_t stored)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    (void)computed, (void)stored; /* else no mutation gets past the checksums */
    return true;
#else
    return computed == stored;
#endif
}

static bool read_at(const struct identity_file *file, uint64_t offset, void *to, size_t size)
{
    char *at = to;
    while (size > 0) {
        ssize_t got = pread(file->fd, at, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return true;
}

/* Reads `count` records of a section from number `first`. */
static bool read_records(const struct identity_file *file, enum section section, uint32_t first,
                         uint32_t count, uint32_t size, void *to)
{
    if (first > file->count[section] || count > file->count[section] - first)
        return false;
    return read_at(file, file->offset[section] + (uint64_t)first * size, to, (size_t)count * size);
}

/* Reads a string of `length` bytes and its NUL. */
static bool read_string(const struct identity_file *file, uint32_t offset, uint32_t length,
                        char *to)
{
    if (offset >= file->bytes[STRINGS] || length >= file->bytes[STRINGS] - offset)
        return false;
    return read_at(file, (uint64_t)file->offset[STRINGS] + offset, to, (size_t)length + 1) &&
           memchr(to, 0, (size_t)length + 1) == to + length;
}

static bool is_header_good(struct identity_file *file, uint64_t file_size)
{
    static const uint32_t sizes[SECTIONS] = {USER, NUMBER, GROUP, NUMBER, MEMBER, NUMBER, 1};
    unsigned char header[HEADER];
    if (!read_at(file, 0, header, sizeof header) || memcmp(header, "GOSLIDC1", 8) != 0 ||
        !crc_agrees(crc32_of(0, header, HEADER_CHECKED), get32(header + HEADER_CHECKED)) ||
        get16(header + 8) != 1 || get32(header + 12) != HEADER ||
        get32(header + 16) != file_size || get32(header + 20) != 0)
        return false;
    file->any_id = (get32(header + 48) & CLOUD_RUN) != 0;
    file->count[USERS] = file->count[UIDS] = get32(header + 52);
    file->count[GROUPS] = file->count[GIDS] = get32(header + 56);
    file->count[MEMBERS] = get32(header + 60);
    file->count[GID_LISTS] = get32(header + 64);
    if (file->count[USERS] > USERS_LIMIT ||
        file->count[GROUPS] > REAL_GROUPS_LIMIT + file->count[USERS] ||
        file->count[MEMBERS] > ALL_MEMBERS_LIMIT)
        return false;
    for (int i = 0; i < SECTIONS; i++) {
        file->offset[i] = get32(header + 72 + 8 * i);
        file->bytes[i] = get32(header + 76 + 8 * i);
        if (i == STRINGS)
            file->count[i] = file->bytes[i];
        if (file->offset[i] < HEADER || file->offset[i] % 8 != 0 ||
            (uint64_t)file->offset[i] + file->bytes[i] > file_size ||
            file->bytes[i] != (uint64_t)file->count[i] * sizes[i])
            return false;
    }
    return true;
}

static enum outcome open_identity_file(struct identity_file *file)
{
    file->fd = open(OSLOGIN_CACHE_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->fd < 0)
        return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? BUSY : UNREACHABLE;
    struct stat status;
    if (fstat(file->fd, &status) == 0 && S_ISREG(status.st_mode) &&
        status.st_uid == OSLOGIN_TRUSTED_UID && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
        status.st_size >= HEADER && status.st_size <= FILE_LIMIT &&
        is_header_good(file, (uint64_t)status.st_size))
        return FOUND;
    (void)close(file->fd);
    return UNREACHABLE;
}

/* Bytes order the names, and of two the shorter is first when the longer begins with it. */
static int compare(const char *name, size_t length, const struct key *key)
{
    int order = memcmp(name, key->name, length < key->length ? length : key->length);
    if (order != 0)
        return order;
    return length < key->length ? -1 : length > key->length;
}

/* Compares a record with the key into `order`; false when the file is not usable. */
static bool order_of(const struct identity_file *file, const struct table *table, uint32_t place,
                     const struct key *key, uint32_t *number, int *order)
{
    unsigned char record[USER], entry[NUMBER];
    char name[GROUP_NAME_LIMIT + 1];
    *number = place;
    if (key->how == BY_ID) {
        if (!read_records(file, table->index, place, 1, NUMBER, entry))
            return false;
        *number = get32(entry);
    }
    if (!read_records(file, table->records, *number, 1, table->size, record))
        return false;
    if (key->how == BY_ID) {
        uint32_t id = get32(record + table->id_at);
        *order = id < key->id ? -1 : id > key->id;
        return true;
    }
    uint32_t length = get16(record + table->length_at);
    if (length > table->name_limit ||
        !read_string(file, get32(record + table->name_at), length, name))
        return false;
    *order = compare(name, length, key);
    return true;
}

/* The number of the record that the key means. */
static enum outcome find(const struct identity_file *file, const struct table *table,
                         const struct key *key, uint32_t *number)
{
    uint32_t low = 0, high = file->count[table->records];
    while (low < high) { /* halves at most 19 times: the header limits the count */
        uint32_t middle = low + (high - low) / 2;
        int order;
        if (!order_of(file, table, middle, key, number, &order))
            return UNREACHABLE;
        if (order == 0 && key->how != AFTER)
            return FOUND;
        if (order <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    *number = low;
    return key->how == AFTER && low < file->count[table->records] ? FOUND : ABSENT;
}

/* Whether the record that was read in whole still is the one that the search stopped at. */
static bool answers(const struct key *key, const char *name, size_t length, uint32_t id)
{
    switch (key->how) {
    case BY_ID:
        return id == key->id;
    case BY_NAME:
        return compare(name, length, key) == 0;
    default:
        return compare(name, length, key) > 0;
    }
}

/* Reads one string behind those that are in the room; NULL when the file is bad. */
static char *load_string(const struct identity_file *file, uint32_t offset, uint32_t length,
                         struct room *room, uint32_t *crc)
{
    char *text = take_aligned(room, (size_t)length + 1, 1);
    if (text == NULL || !read_string(file, offset, length, text))
        return NULL;
    *crc = crc32_of(*crc, text, (size_t)length + 1);
    return text;
}

/* Adds a user's gids to the checksum and, unless it is NULL, to the list. */
static enum outcome load_gids(const struct identity_file *file, uint32_t first, uint32_t count,
                              struct gid_list *gids, uint32_t *crc)
{
    unsigned char entries[64 * NUMBER];
    while (count > 0) {
        uint32_t some = count < 64 ? count : 64;
        if (!read_records(file, GID_LISTS, first, some, NUMBER, entries))
            return UNREACHABLE;
        *crc = crc32_of(*crc, entries, (size_t)some * NUMBER);
        for (uint32_t i = 0; gids != NULL && i < some; i++) {
            uint32_t gid = get32(entries + i * NUMBER);
            if (!is_group_id(gid) && !file->any_id)
                return UNREACHABLE;
            enum outcome outcome = add_gid(gids, gid);
            if (outcome != FOUND)
                return outcome;
        }
        first += some;
        count -= some;
    }
    return FOUND;
}

static enum outcome load_user(const struct identity_file *file, uint32_t number,
                              const struct key *key, struct passwd *user, struct room room,
                              struct gid_list *gids)
{
    unsigned char record[USER];
    if (!read_records(file, USERS, number, 1, USER, record))
        return UNREACHABLE;
    uint32_t uid = get32(record), gid = get32(record + 4);
    uint32_t name = get16(record + 24), home = get16(record + 26), shell = get16(record + 28);
    uint32_t gecos = get16(record + 30), gid_count = get32(record + 36);
    if (name == 0 || name > USER_NAME_LIMIT || home > TEXT_LIMIT || shell > TEXT_LIMIT ||
        gecos > TEXT_LIMIT || gid_count > GIDS_LIMIT ||
        (!file->any_id && !(is_user_id(uid) && is_group_id(gid))))
        return UNREACHABLE;
    if ((size_t)name + home + shell + gecos + 4 + sizeof "*" > room.left)
        return SHORT_BUFFER;

    uint32_t crc = crc32_of(0, record, USER - NUMBER);
    user->pw_name = load_string(file, get32(record + 8), name, &room, &crc);
    user->pw_dir = user->pw_name ? load_string(file, get32(record + 12), home, &room, &crc) : NULL;
    user->pw_shell = user->pw_dir ? load_string(file, get32(record + 16), shell, &room, &crc) : NULL;
    user->pw_gecos =
        user->pw_shell ? load_string(file, get32(record + 20), gecos, &room, &crc) : NULL;
    if (user->pw_gecos == NULL || !is_user_name(user->pw_name, name) ||
        !answers(key, user->pw_name, name, uid))
        return UNREACHABLE;
    enum outcome outcome = load_gids(file, get32(record + 32), gid_count, gids, &crc);
    if (outcome != FOUND)
        return outcome;
    if (!crc_agrees(crc, get32(record + USER - NUMBER)))
        return UNREACHABLE;
    user->pw_passwd = memcpy(take_aligned(&room, sizeof "*", 1), "*", sizeof "*");
    user->pw_uid = uid;
    user->pw_gid = gid;
    return FOUND;
}

/* Reads a group's members into the array and adds their names to the checksum. */
static bool load_members(const struct identity_file *file, uint32_t first, uint32_t count,
                         char **array, struct room *room, uint32_t *crc)
{
    unsigned char entries[32 * MEMBER];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = i % 32;
        if (place == 0 && !read_records(file, MEMBERS, first + i, count - i < 32 ? count - i : 32,
                                        MEMBER, entries))
            return false;
        uint32_t length = get32(entries + place * MEMBER + 4);
        if (length == 0 || length > USER_NAME_LIMIT)
            return false;
        array[i] = load_string(file, get32(entries + place * MEMBER), length, room, crc);
        if (array[i] == NULL)
            return false;
    }
    array[count] = NULL;
    return true;
}

static enum outcome load_group(const struct identity_file *file, uint32_t number,
                               const struct key *key, struct group *group, struct room room)
{
    unsigned char record[GROUP];
    if (!read_records(file, GROUPS, number, 1, GROUP, record))
        return UNREACHABLE;
    uint32_t gid = get32(record), name = get16(record + 8), first = get32(record + 12);
    uint32_t count = get32(record + 16), total = get32(record + 20);
    /* The bounds of `total` keep a bad record from asking the caller for ever more room. */
    if (name == 0 || name > GROUP_NAME_LIMIT || count > MEMBERS_LIMIT || total < 2 * count ||
        total > count * (USER_NAME_LIMIT + 1) || (!file->any_id && !is_group_id(gid)))
        return UNREACHABLE;
    char **array = take_aligned(&room, ((size_t)count + 1) * sizeof *array, sizeof *array);
    if (array == NULL || (size_t)name + 1 + sizeof "x" + total > room.left)
        return SHORT_BUFFER;

    char *password = memcpy(take_aligned(&room, sizeof "x", 1), "x", sizeof "x");
    uint32_t crc = crc32_of(0, record, GROUP - NUMBER);
    char *text = load_string(file, get32(record + 4), name, &room, &crc);
    room.left = total < room.left ? total : room.left;
    if (text == NULL || !is_group_name(text, name) || !answers(key, text, name, gid) ||
        !load_members(file, first, count, array, &room, &crc) || room.left != 0 ||
        !crc_agrees(crc, get32(record + GROUP - NUMBER)))
        return UNREACHABLE;
    group->gr_name = text;
    group->gr_passwd = password;
    group->gr_gid = gid;
    group->gr_mem = array;
    return FOUND;
}

enum outcome cached_user(const struct key *key, struct passwd *user, struct room room,
                         struct gid_list *gids)
{
    struct identity_file file;
    uint32_t number;
    enum outcome outcome = open_identity_file(&file);
    if (outcome != FOUND)
        return outcome;
    outcome = find(&file, &users, key, &number);
    if (outcome == FOUND)
        outcome = load_user(&file, number, key, user, room, gids);
    (void)close(file.fd);
    return outcome;
}

enum outcome cached_group(const struct key *key, struct group *group, struct room room)
{
    struct identity_file file;
    uint32_t number;
    enum outcome outcome = open_identity_file(&file);
    if (outcome != FOUND)
        return outcome;
    outcome = find(&file, &groups, key, &number);
    if (outcome == FOUND)
        outcome = load_group(&file, number, key, group, room);
    (void)close(file.fd);
    return outcome;
}
