/*
 * pam_oslogin_login.so and, with -DOSLOGIN_ADMIN, pam_oslogin_admin.so: a terminal between PAM and
 * the OS Login service. auth shows the service's questions and sends the answers back (second
 * factor); account asks whether the user may log in (admin: as an administrator). What is asked and
 * who may log in is decided by the service, over its socket for root. No memory of one call is left
 * to the next, and nothing that the service says is ever used as a format.
 *
 * Options: strict (account: only PAM_SUCCESS and PAM_PERM_DENIED), local_users=ignore (auth:
 * PAM_IGNORE for names in /etc/passwd), debug. The protocol is that of src/oslogin/protocol.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <security/pam_appl.h>
#include <security/pam_modules.h>

#include "paths.h"

#ifdef OSLOGIN_ADMIN
#define MODULE "pam_oslogin_admin"
enum { WANTED_POLICY = 2, IS_ADMIN = 1 };
#else
#define MODULE "pam_oslogin_login"
enum { WANTED_POLICY = 1, IS_ADMIN = 0 };
#endif
#ifndef OSLOGIN_SERVER_UID /* tests run without root */
#define OSLOGIN_SERVER_UID 0
#endif
#ifndef OSLOGIN_SECOND_MS /* tests do not wait for 90 seconds */
#define OSLOGIN_SECOND_MS 1000
#endif
#define EXPORT __attribute__((visibility("default")))

enum { AUTHORIZE = 32, CHAL_BEGIN = 48, CHAL_REPLY = 49, CHAL_ABORT = 50, IS_REPLY = 0x8000 };
enum { NAME = 1, SERVICE = 16, RHOST, HANDLE = 20, ANSWER, STYLE, PROMPT, RESULT = 25, POLICY };
enum { STATUS_OK = 0, STATUS_NOT_FOUND = 1, STATUS_DENIED = 5, STATUS_DISABLED = 6 };
enum { ALLOWED, DENIED, UNAVAILABLE, IGNORED, AUTH_ERROR, UNKNOWN, NO_RESULT };
enum { ECHO_OFF = 1, ECHO_ON, ERROR_TEXT, INFO_TEXT };
enum { HEADER = 16, MOST_REPLY = 32768, MOST_REQUEST = 4096, MOST_PROMPTS = 16, MOST_ANSWER = 1024 };
enum { MOST_ROUNDS = 8, HANDLE_SIZE = 16, LONGEST_NAME = 32, LONGEST_ITEM = 255 };

struct options {
	bool strict, ignore_local, debug;
};

struct request {
	uint8_t data[MOST_REQUEST];
	size_t length;
};

struct reply { /* texts and handle point into the received bytes */
	unsigned result, prompts, styles[MOST_PROMPTS];
	const char *texts[MOST_PROMPTS];
	const uint8_t *handle;
};

static uint32_t number_at(const uint8_t *at, size_t bytes)
{
	uint32_t value = 0;
	while (bytes-- > 0)
		value = value << 8 | at[bytes];
	return value;
}

static void put_number(uint8_t *at, size_t bytes, uint32_t value)
{
	for (size_t i = 0; i < bytes; i++, value >>= 8)
		at[i] = (uint8_t)value;
}

static void start(struct request *request, unsigned opcode, uint32_t id)
{
	memset(request->data, 0, HEADER);
	memcpy(request->data, "GOL1", 4);
	put_number(request->data + 8, 2, opcode);
	put_number(request->data + 12, 4, id);
	request->length = HEADER;
}

/* All fields together are bounded by LONGEST_NAME, LONGEST_ITEM and MOST_ANSWER. */
static void add(struct request *request, unsigned tag, const void *bytes, size_t length)
{
	uint8_t *at = request->data + request->length;
	put_number(at, 2, tag);
	put_number(at + 2, 2, (uint32_t)length);
	memcpy(at + 4, bytes, length);
	request->length += 4 + length;
	put_number(request->data + 4, 4, (uint32_t)(request->length - HEADER));
}

static void add_item(struct request *request, pam_handle_t *pamh, int item, unsigned tag)
{
	const void *text = NULL;
	if (pam_get_item(pamh, item, &text) != PAM_SUCCESS || text == NULL)
		return;
	if (strnlen(text, LONGEST_ITEM + 1) <= LONGEST_ITEM)
		add(request, tag, text, strlen(text) + 1);
}

/* The fields of a reply; false for anything that is none of the protocol or not of its sense. */
static bool parse_fields(const uint8_t *data, size_t length, struct reply *reply)
{
	bool has_style = false;
	memset(reply, 0, sizeof *reply);
	reply->result = NO_RESULT;
	for (size_t at = 0, size; at < length; at += 4 + size) {
		if (length - at < 4 || (size = number_at(data + at + 2, 2)) > length - at - 4)
			return false;
		const uint8_t *field = data + at + 4;
		switch (number_at(data + at, 2)) {
		case RESULT:
			if (size != 4 || reply->result != NO_RESULT || number_at(field, 4) >= NO_RESULT)
				return false;
			reply->result = number_at(field, 4);
			break;
		case HANDLE:
			if (size != HANDLE_SIZE || reply->handle != NULL)
				return false;
			reply->handle = field;
			break;
		case STYLE:
			if (size != 4 || has_style || reply->prompts == MOST_PROMPTS)
				return false;
			reply->styles[reply->prompts] = number_at(field, 4);
			if (reply->styles[reply->prompts] < ECHO_OFF || reply->styles[reply->prompts] > INFO_TEXT)
				return false;
			has_style = true;
			break;
		case PROMPT:
			if (!has_style || size == 0 || memchr(field, 0, size) != field + size - 1)
				return false;
			reply->texts[reply->prompts++] = (const char *)field;
			has_style = false;
			break;
		default: /* of a later version */
			break;
		}
	}
	/* One question, as the last prompt, or a result. */
	for (unsigned i = 0; i < reply->prompts; i++)
		if (reply->styles[i] <= ECHO_ON && (reply->result != NO_RESULT || i + 1 < reply->prompts))
			return false;
	return !has_style && (reply->result != NO_RESULT || (reply->handle != NULL && reply->prompts > 0 &&
		reply->styles[reply->prompts - 1] <= ECHO_ON));
}

/* A whole reply to the request that began with the given header; the result of a failure otherwise. */
static void parse_reply(const uint8_t *sent, const uint8_t *header, const uint8_t *payload,
			size_t length, struct reply *reply)
{
	unsigned status = number_at(header + 10, 2), result = UNAVAILABLE;
	if (memcmp(header, "GOL1", 4) == 0 && number_at(header + 4, 4) == length &&
	    number_at(header + 8, 2) == (number_at(sent + 8, 2) | IS_REPLY) &&
	    memcmp(header + 12, sent + 12, 4) == 0) {
		if (status == STATUS_OK && parse_fields(payload, length, reply))
			return;
		if (status == STATUS_NOT_FOUND || status == STATUS_DISABLED)
			result = UNKNOWN;
		else if (status == STATUS_DENIED)
			result = DENIED;
	}
	memset(reply, 0, sizeof *reply);
	reply->result = result;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sends or receives all bytes before the deadline. */
static bool transfer(int fd, uint8_t *data, size_t length, bool is_send, int64_t deadline)
{
	while (length > 0) {
		ssize_t done = is_send ? send(fd, data, length, MSG_NOSIGNAL) : recv(fd, data, length, 0);
		if (done > 0) {
			data += done;
			length -= (size_t)done;
			continue;
		}
		if (done == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return false;
		int64_t left = deadline - now_ms();
		struct pollfd one = {.fd = fd, .events = is_send ? POLLOUT : POLLIN};
		if (left <= 0 || (poll(&one, 1, (int)left) < 0 && errno != EINTR))
			return false;
	}
	return true;
}

/* A connection to the service, -1 without one. The peer is who called listen(): root. */
static int connect_service(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = OSLOGIN_AUTH_SOCKET};
	uid_t uid = (uid_t)-1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
#ifdef SO_PEERCRED
		struct ucred peer;
		socklen_t size = sizeof peer;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
			uid = peer.uid;
#else
		gid_t gid;
		if (getpeereid(fd, &uid, &gid) != 0)
			uid = (uid_t)-1;
#endif
	}
	if (uid == OSLOGIN_SERVER_UID)
		return fd;
	close(fd);
	return -1;
}

/* Sends a request, reads its reply into payload and forgets the request. */
static void ask(int fd, struct request *request, unsigned seconds, uint8_t *payload, struct reply *reply)
{
	int64_t deadline = now_ms() + (int64_t)seconds * OSLOGIN_SECOND_MS;
	uint8_t sent[HEADER], header[HEADER] = {0};
	size_t length = 0;
	bool is_whole = transfer(fd, request->data, request->length, true, deadline) &&
		transfer(fd, header, HEADER, false, deadline) &&
		(length = number_at(header + 4, 4)) <= MOST_REPLY &&
		transfer(fd, payload, length, false, deadline);
	memcpy(sent, request->data, HEADER);
	explicit_bzero(request, sizeof *request);
	if (!is_whole)
		memset(header, 0, HEADER);
	parse_reply(sent, header, payload, length, reply);
}

/* The rule of login names, as everywhere in OS Login. */
static bool is_login_name(const char *name)
{
	size_t length = strnlen(name, LONGEST_NAME + 1);
	return length >= 1 && length <= LONGEST_NAME && name[0] != '-' && strcmp(name, ".") != 0 &&
		strcmp(name, "..") != 0 &&
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == length;
}

/* Whether /etc/passwd has the name; without the name service, which might be us. */
static bool is_local(const char *name)
{
	char block[4096];
	size_t length = strlen(name), matched = 0; /* of the line's first field; > length: other line */
	bool found = false;
	ssize_t got;
	int fd = open(OSLOGIN_PASSWD_FILE, O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && !found && (got = read(fd, block, sizeof block)) > 0)
		for (ssize_t i = 0; i < got && !found; i++) {
			if (block[i] == '\n')
				matched = 0;
			else if (matched == length && block[i] == ':')
				found = true;
			else if (matched < length && block[i] == name[matched])
				matched++;
			else
				matched = length + 1;
		}
	if (fd >= 0)
		close(fd);
	return found;
}

/* Whether the user was let in before, by the users file: `.` is `+2E` in its name. */
static bool was_admitted(const char *name)
{
	char path[sizeof OSLOGIN_USERS_FOLDER + 3 * LONGEST_NAME + 3];
	size_t at = sizeof OSLOGIN_USERS_FOLDER;
	struct stat status;
	memcpy(path, OSLOGIN_USERS_FOLDER "/", at);
	if (strcmp(name, "README") == 0)
		path[at++] = '+';
	for (; *name != '\0'; name++) {
		memcpy(path + at, *name == '.' ? "+2E" : name, *name == '.' ? 3 : 1);
		at += *name == '.' ? 3 : 1;
	}
	path[at] = '\0';
	return lstat(path, &status) == 0;
}

static struct options read_options(int argc, const char **argv)
{
	struct options options = {0};
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "strict") == 0)
			options.strict = true;
		else if (strcmp(argv[i], "local_users=ignore") == 0)
			options.ignore_local = true;
		else if (strcmp(argv[i], "debug") == 0)
			options.debug = true;
		else
			syslog(LOG_AUTHPRIV | LOG_WARNING, MODULE ": option %.64s is not known, ignored", argv[i]);
	}
	return options;
}

static const char *user_of(pam_handle_t *pamh)
{
	const char *user = NULL;
	return pam_get_user(pamh, &user, NULL) == PAM_SUCCESS && user != NULL && *user ? user : NULL;
}

static void forget(char *answer)
{
	if (answer != NULL)
		explicit_bzero(answer, strlen(answer));
	free(answer);
}

/* Shows one text; *answer is set for a question only. False: no conversation, or no answer. */
static bool converse(pam_handle_t *pamh, unsigned style, const char *text, char **answer)
{
	static const int styles[] = {0, PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON, PAM_ERROR_MSG, PAM_TEXT_INFO};
	struct pam_message message = {.msg_style = styles[style], .msg = (char *)(uintptr_t)text};
	const struct pam_message *messages = &message;
	struct pam_response *response = NULL;
	const void *item = NULL;
	if (pam_get_item(pamh, PAM_CONV, &item) != PAM_SUCCESS || item == NULL)
		return false;
	const struct pam_conv *conversation = item;
	if (conversation->conv == NULL ||
	    conversation->conv(1, &messages, &response, conversation->appdata_ptr) != PAM_SUCCESS)
		return false;
	char *given = response != NULL ? response->resp : NULL;
	free(response);
	if (style <= ECHO_ON)
		return (*answer = given) != NULL;
	forget(given);
	return true;
}

/* Shows what a reply has; true when there is an answer. The request is the next: reply or abort. */
static bool show(pam_handle_t *pamh, int flags, const struct reply *reply, struct request *request, uint32_t round)
{
	char *answer = NULL;
	bool is_shown = reply->result != NO_RESULT || round <= MOST_ROUNDS;
	for (unsigned i = 0; i < reply->prompts && is_shown; i++)
		if (reply->styles[i] <= ECHO_ON || !(flags & PAM_SILENT))
			is_shown = converse(pamh, reply->styles[i], reply->texts[i], &answer);
	if (reply->result != NO_RESULT)
		return false;
	size_t length = answer != NULL ? strlen(answer) : 0;
	is_shown = is_shown && length <= MOST_ANSWER;
	start(request, is_shown ? CHAL_REPLY : CHAL_ABORT, round + 1);
	add(request, HANDLE, reply->handle, HANDLE_SIZE);
	if (is_shown)
		add(request, ANSWER, answer, length + 1);
	forget(answer);
	return is_shown;
}

/* The second factor of a user: the result. */
static unsigned challenge(pam_handle_t *pamh, int flags, const char *user, int fd, bool *is_told)
{
	uint8_t payload[MOST_REPLY];
	struct request request;
	struct reply reply;
	start(&request, CHAL_BEGIN, 1);
	add(&request, NAME, user, strlen(user) + 1);
	add_item(&request, pamh, PAM_SERVICE, SERVICE);
	add_item(&request, pamh, PAM_RHOST, RHOST);
	ask(fd, &request, 30, payload, &reply);
	for (uint32_t round = 1;; round++) {
		bool is_answered = show(pamh, flags, &reply, &request, round);
		*is_told = reply.result != NO_RESULT && reply.prompts > 0;
		if (reply.result != NO_RESULT)
			return reply.result;
		ask(fd, &request, is_answered ? 90 : 1, payload, &reply);
		if (!is_answered)
			return DENIED;
	}
}

EXPORT int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct options options = read_options(argc, argv);
	const char *user = user_of(pamh);
	unsigned result = DENIED;
	bool is_told = false;
	int fd;
	if (IS_ADMIN)
		return PAM_IGNORE; /* it never had a factor of its own: neither grants nor denies */
	if (user == NULL || !is_login_name(user))
		return PAM_PERM_DENIED;
	if (options.ignore_local && is_local(user))
		return PAM_IGNORE;
	if ((fd = connect_service()) >= 0)
		result = challenge(pamh, flags, user, fd, &is_told);
	else
		syslog(LOG_AUTHPRIV | LOG_ERR, MODULE ": %s denied: the OS Login service cannot be reached", user);
	if (fd >= 0)
		close(fd);
	if (options.debug)
		syslog(LOG_AUTHPRIV | LOG_DEBUG, MODULE ": auth of %s: result %u", user, result);
	if (result == ALLOWED)
		return PAM_SUCCESS;
	if (!is_told && !(flags & PAM_SILENT))
		converse(pamh, ERROR_TEXT, "OS Login did not accept this login.", NULL);
	return PAM_PERM_DENIED;
}

EXPORT int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	(void)pamh, (void)flags, (void)argc, (void)argv;
	return PAM_SUCCESS;
}

static int account(pam_handle_t *pamh, const char *user)
{
	uint8_t payload[MOST_REPLY];
	struct request request;
	struct reply reply = {.result = UNAVAILABLE};
	int fd;
	if (!is_login_name(user) || is_local(user))
		return PAM_IGNORE;
	if ((fd = connect_service()) >= 0) {
		uint8_t policy[4];
		put_number(policy, sizeof policy, WANTED_POLICY);
		start(&request, AUTHORIZE, 1);
		add(&request, NAME, user, strlen(user) + 1);
		add(&request, POLICY, policy, sizeof policy);
		add_item(&request, pamh, PAM_SERVICE, SERVICE);
		ask(fd, &request, 20, payload, &reply);
		close(fd);
	}
	switch (reply.result) {
	case ALLOWED:
		return PAM_SUCCESS;
	case IGNORED:
	case UNKNOWN:
		return PAM_IGNORE;
	case AUTH_ERROR:
		return PAM_AUTH_ERR;
	case UNAVAILABLE:
		syslog(LOG_AUTHPRIV | LOG_ERR, MODULE ": %s: the OS Login service gave no answer", user);
		return was_admitted(user) ? PAM_PERM_DENIED : PAM_AUTHINFO_UNAVAIL;
	default:
		return PAM_PERM_DENIED;
	}
}

EXPORT int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
	struct options options = read_options(argc, argv);
	const char *user = user_of(pamh);
	int result = user != NULL ? account(pamh, user) : PAM_PERM_DENIED;
	(void)flags;
	if (options.debug && user != NULL && is_login_name(user))
		syslog(LOG_AUTHPRIV | LOG_DEBUG, MODULE ": account of %s: %d", user, result);
	return options.strict && result != PAM_SUCCESS ? PAM_PERM_DENIED : result;
}

/* Never shipped, so that libpam failed each stack that named them; now such a line does nothing. */
#define DOES_NOTHING(function)                                                        \
	EXPORT int function(pam_handle_t *pamh, int flags, int argc, const char **argv) \
	{                                                                               \
		(void)pamh, (void)flags, (void)argc, (void)argv;                        \
		return PAM_IGNORE;                                                      \
	}
DOES_NOTHING(pam_sm_open_session)
DOES_NOTHING(pam_sm_close_session)
DOES_NOTHING(pam_sm_chauthtok)
