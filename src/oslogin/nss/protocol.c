/*
 * Questions to the service on nss.sock (protocol: protocol.py).  One question a connection.  The
 * payload of the answer lands in the caller's buffer, and the strings stay where they land.
 */
#include "shim.h"

#include <string.h>

enum { HEADER = 16, FIELD = 4, REPLY = 0x8000 };
enum { GETPWNAM = 2, GETPWUID = 3, GETGRNAM = 4, GETGRGID = 5, INITGROUPS = 6 };
enum {
    NAME = 1,
    ID = 2,
    GID = 3,
    GECOS = 4,
    HOME = 5,
    SHELL = 6,
    COUNT = 7,
    MEMBER = 8,
    GIDS = 9,
    TAGS = 10,
};
enum { OK = 0, NOT_FOUND = 1, UNAVAILABLE = 2, SERVICE_BUSY = 3, DISABLED = 6 };

/* The fields of an answer: a string's start, or where a number is. */
struct answer {
    char *field[TAGS];
    size_t length[TAGS]; /* of a string, without its NUL */
    uint32_t members;
};

static enum outcome outcome_of(uint32_t status)
{
    switch (status) {
    case OK:
        return FOUND;
    case NOT_FOUND:
    case DISABLED:
        return ABSENT;
    case UNAVAILABLE:
    case SERVICE_BUSY:
        return BUSY;
    default:
        return UNREACHABLE;
    }
}

/* Sends the question and reads the header of the answer. */
static enum outcome ask(struct connection *connection, uint32_t opcode, const struct key *key,
                        uint32_t *payload)
{
    unsigned char message[HEADER + FIELD + GROUP_NAME_LIMIT + 1];
    uint32_t size = key->how == BY_ID ? 4 : (uint32_t)key->length + 1;
    memcpy(message, "GOL1", 4);
    put32(message + 4, FIELD + size);
    put16(message + 8, opcode);
    put16(message + 10, 0);
    put32(message + 12, connection->request_id);
    put16(message + HEADER, key->how == BY_ID ? ID : NAME);
    put16(message + HEADER + 2, size);
    if (key->how == BY_ID)
        put32(message + HEADER + FIELD, key->id);
    else
        memcpy(message + HEADER + FIELD, key->name, size);
    enum outcome outcome = send_all(connection, message, HEADER + FIELD + size);
    if (outcome == FOUND)
        outcome = receive_all(connection, message, HEADER);
    if (outcome != FOUND)
        return outcome;
    *payload = get32(message + 4);
    if (memcmp(message, "GOL1", 4) != 0 || *payload > REPLY_LIMIT ||
        get16(message + 8) != (opcode | REPLY) || get32(message + 12) != connection->request_id)
        return UNREACHABLE;
    return outcome_of(get16(message + 10));
}

/* Whether the bytes are one line of passwd or group, NUL at the end and nowhere else. */
static bool is_text(const char *bytes, size_t size, size_t limit)
{
    if (size == 0 || size > limit + 1 || bytes[size - 1] != 0)
        return false;
    for (size_t i = 0; i + 1 < size; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c < ' ' || c == 127 || c == ':')
            return false;
    }
    return true;
}

static bool is_field_good(uint32_t tag, const char *bytes, size_t size)
{
    switch (tag) {
    case NAME:
        return size > 0 && is_text(bytes, size, GROUP_NAME_LIMIT) && is_group_name(bytes, size - 1);
    case MEMBER:
        return size > 0 && is_text(bytes, size, USER_NAME_LIMIT) && is_user_name(bytes, size - 1);
    case GECOS:
    case HOME:
    case SHELL:
        return is_text(bytes, size, TEXT_LIMIT);
    default:
        return size == 4;
    }
}

/* Takes the payload apart.  Members are counted, and written to `array` unless it is NULL. */
static bool parse(char *at, size_t left, struct answer *answer, char **array)
{
    memset(answer, 0, sizeof *answer);
    while (left > 0) {
        if (left < FIELD)
            return false;
        uint32_t tag = get16((unsigned char *)at), size = get16((unsigned char *)at + 2);
        char *bytes = at + FIELD;
        if (size > left - FIELD)
            return false;
        at = bytes + size;
        left -= FIELD + size;
        if (tag < NAME || tag > MEMBER)
            continue;
        if (!is_field_good(tag, bytes, size))
            return false;
        if (tag == MEMBER) {
            if (array != NULL)
                array[answer->members] = bytes;
            answer->members++;
        } else if (answer->field[tag] != NULL) {
            return false;
        } else {
            answer->field[tag] = bytes;
            answer->length[tag] = size - 1;
        }
    }
    return true;
}

static uint32_t number_of(const struct answer *answer, uint32_t tag)
{
    return get32((const unsigned char *)answer->field[tag]);
}

/* Whether the answer is about what was asked for. */
static bool answers(const struct answer *answer, const struct key *key)
{
    if (answer->field[NAME] == NULL || answer->field[ID] == NULL)
        return false;
    if (key->how == BY_ID)
        return number_of(answer, ID) == key->id;
    return answer->length[NAME] == key->length &&
           memcmp(answer->field[NAME], key->name, key->length) == 0;
}

/* Asks, and reads the payload into the tail of the room, which shrinks to what is before it. */
static enum outcome ask_into(uint32_t opcode, const struct key *key, struct room *room,
                             char **payload, uint32_t *size)
{
    struct connection connection;
    enum outcome outcome = open_connection(&connection);
    if (outcome != FOUND)
        return outcome;
    outcome = ask(&connection, opcode, key, size);
    if (outcome == FOUND && *size > room->left)
        outcome = SHORT_BUFFER;
    if (outcome == FOUND) {
        room->left -= *size;
        *payload = room->at + room->left;
        outcome = receive_all(&connection, *payload, *size);
    }
    close_connection(&connection);
    return outcome;
}

enum outcome asked_user(const struct key *key, struct passwd *user, struct room room)
{
    struct answer answer;
    char *payload;
    uint32_t size;
    enum outcome outcome =
        ask_into(key->how == BY_ID ? GETPWUID : GETPWNAM, key, &room, &payload, &size);
    if (outcome != FOUND)
        return outcome;
    if (!parse(payload, size, &answer, NULL) || !answers(&answer, key) ||
        answer.field[GID] == NULL || answer.field[GECOS] == NULL || answer.field[HOME] == NULL ||
        answer.field[SHELL] == NULL || answer.length[NAME] > USER_NAME_LIMIT ||
        !is_user_id(number_of(&answer, ID)) || !is_group_id(number_of(&answer, GID)))
        return UNREACHABLE;
    char *password = take_aligned(&room, sizeof "*", 1);
    if (password == NULL)
        return SHORT_BUFFER;
    user->pw_name = answer.field[NAME];
    user->pw_passwd = memcpy(password, "*", sizeof "*");
    user->pw_uid = number_of(&answer, ID);
    user->pw_gid = number_of(&answer, GID);
    user->pw_gecos = answer.field[GECOS];
    user->pw_dir = answer.field[HOME];
    user->pw_shell = answer.field[SHELL];
    return FOUND;
}

enum outcome asked_group(const struct key *key, struct group *group, struct room room)
{
    struct answer answer;
    char *payload;
    uint32_t size;
    enum outcome outcome =
        ask_into(key->how == BY_ID ? GETGRGID : GETGRNAM, key, &room, &payload, &size);
    if (outcome != FOUND)
        return outcome;
    if (!parse(payload, size, &answer, NULL) || !answers(&answer, key) ||
        answer.field[COUNT] == NULL || number_of(&answer, COUNT) != answer.members ||
        answer.members > MEMBERS_LIMIT || !is_group_id(number_of(&answer, ID)))
        return UNREACHABLE;
    char **array = take_aligned(&room, ((size_t)answer.members + 1) * sizeof *array, sizeof *array);
    char *password = array == NULL ? NULL : take_aligned(&room, sizeof "x", 1);
    if (password == NULL)
        return SHORT_BUFFER;
    (void)parse(payload, size, &answer, array);
    array[answer.members] = NULL;
    group->gr_name = answer.field[NAME];
    group->gr_passwd = memcpy(password, "x", sizeof "x");
    group->gr_gid = number_of(&answer, ID);
    group->gr_mem = array;
    return FOUND;
}

/* Reads an array of gids in pieces: there is no buffer of the caller's for it. */
static enum outcome receive_gids(struct connection *connection, uint32_t size,
                                 struct gid_list *gids)
{
    unsigned char piece[256];
    while (size > 0) {
        uint32_t some = size < sizeof piece ? size : (uint32_t)sizeof piece;
        enum outcome outcome = receive_all(connection, piece, some);
        for (uint32_t i = 0; outcome == FOUND && gids != NULL && i < some; i += 4) {
            uint32_t gid = get32(piece + i);
            outcome = is_group_id(gid) ? add_gid(gids, gid) : UNREACHABLE;
        }
        if (outcome != FOUND)
            return outcome;
        size -= some;
    }
    return FOUND;
}

/* Reads the fields of a list of gids as they come. */
static enum outcome receive_gid_fields(struct connection *connection, uint32_t left,
                                       struct gid_list *gids)
{
    unsigned char field[FIELD], number[4];
    int64_t count = -1, listed = -1;
    while (left > 0) {
        if (left < FIELD)
            return UNREACHABLE;
        enum outcome outcome = receive_all(connection, field, FIELD);
        if (outcome != FOUND)
            return outcome;
        uint32_t tag = get16(field), size = get16(field + 2);
        left -= FIELD;
        if (size > left)
            return UNREACHABLE;
        left -= size;
        if (tag == COUNT) {
            if (size != sizeof number || count >= 0)
                return UNREACHABLE;
            outcome = receive_all(connection, number, sizeof number);
            count = get32(number);
        } else if (tag == GIDS) {
            if (size % 4 != 0 || size / 4 > REPLY_GIDS_LIMIT || listed >= 0)
                return UNREACHABLE;
            outcome = receive_gids(connection, size, gids);
            listed = size / 4;
        } else {
            outcome = receive_gids(connection, size, NULL);
        }
        if (outcome != FOUND)
            return outcome;
    }
    return count >= 0 && count == (listed < 0 ? 0 : listed) ? FOUND : UNREACHABLE;
}

enum outcome asked_gids(const struct key *key, struct gid_list *gids)
{
    struct connection connection;
    uint32_t size;
    enum outcome outcome = open_connection(&connection);
    if (outcome != FOUND)
        return outcome;
    outcome = ask(&connection, INITGROUPS, key, &size);
    if (outcome == FOUND)
        outcome = receive_gid_fields(&connection, size, gids);
    close_connection(&connection);
    return outcome;
}
