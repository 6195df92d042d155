/*
 * Calls one function of a PAM module without a PAM stack.
 *   driver FUNCTION USER FLAGS [OPTION..]; USER "-" is none.
 * Standard input: one answer a line, "!" for a conversation that fails. Standard output: "P STYLE
 * TEXT IN HEX" for each message, "L TEXT" for each line to syslog, "R RESULT" at the end.
 */
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *user;

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
	static char line[70000];
	(void)data;
	if (count != 1)
		return PAM_CONV_ERR;
	printf("P %d ", messages[0]->msg_style);
	for (const char *at = messages[0]->msg; *at; at++)
		printf("%02x", (unsigned char)*at);
	printf("\n");
	*responses = calloc(1, sizeof **responses);
	if (messages[0]->msg_style != PAM_PROMPT_ECHO_ON && messages[0]->msg_style != PAM_PROMPT_ECHO_OFF)
		return PAM_SUCCESS;
	if (fgets(line, sizeof line, stdin) == NULL || strcmp(line, "!\n") == 0) {
		free(*responses);
		*responses = NULL;
		return PAM_CONV_ERR;
	}
	line[strcspn(line, "\n")] = '\0';
	(*responses)->resp = strdup(line);
	return PAM_SUCCESS;
}

int pam_get_user(pam_handle_t *pamh, const char **found, const char *prompt)
{
	(void)pamh, (void)prompt;
	*found = user;
	return user != NULL ? PAM_SUCCESS : PAM_CONV_ERR;
}

int pam_get_item(const pam_handle_t *pamh, int type, const void **item)
{
	static const struct pam_conv conversation = {converse, NULL};
	(void)pamh;
	*item = type == PAM_SERVICE ? "sshd" : type == PAM_RHOST ? "192.0.2.7" : NULL;
	if (type == PAM_CONV)
		*item = &conversation;
	return PAM_SUCCESS;
}

void syslog(int priority, const char *format, ...)
{
	va_list values;
	(void)priority;
	va_start(values, format);
	printf("L ");
	vprintf(format, values);
	printf("\n");
	va_end(values);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*function)(pam_handle_t *, int, int, const char **);
	} functions[] = {
		{"auth", pam_sm_authenticate}, {"setcred", pam_sm_setcred},
		{"account", pam_sm_acct_mgmt}, {"open_session", pam_sm_open_session},
		{"close_session", pam_sm_close_session}, {"password", pam_sm_chauthtok},
	};
	if (argc < 4)
		return 2;
	user = strcmp(argv[2], "-") ? argv[2] : NULL;
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
		if (strcmp(functions[i].name, argv[1]) == 0) {
			int result = functions[i].function((pam_handle_t *)&user, atoi(argv[3]), argc - 4, (const char **)argv + 4);
			printf("R %d\n", result);
			return 0;
		}
	return 2;
}
