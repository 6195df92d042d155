/* Which names and ids can be those of OS Login at all: everything else never reaches a file. */
#include "shim.h"

static bool is_name(const char *name, size_t length, size_t limit)
{
    if (length == 0 || length > limit || name[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = name[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '.' || c == '_' || c == '-';
        if (!good)
            return false;
    }
    return name[0] != '.' || !(length == 1 || (length == 2 && name[1] == '.'));
}

bool is_user_name(const char *name, size_t length)
{
    return is_name(name, length, USER_NAME_LIMIT);
}

bool is_group_name(const char *name, size_t length)
{
    return is_name(name, length, GROUP_NAME_LIMIT);
}

/* 65534 and 65535 are nobody's and the 16 bit "no id"; 4294967295 is "leave it as it is". */
bool is_user_id(uint32_t uid)
{
    return uid >= 1000 && uid != 65534 && uid != 65535 && uid != UINT32_MAX;
}

bool is_group_id(uint32_t gid)
{
    return gid >= 1000 && gid != UINT32_MAX;
}
