/* Any bytes as the reply to CHAL_BEGIN: what is accepted is whole, inside them and makes sense. */
#include "pam_oslogin.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t sent[HEADER] = {'G', 'O', 'L', '1', 0, 0, 0, 0, CHAL_BEGIN, 0, 0, 0, 1};
	struct reply reply;
	if (size < HEADER || size - HEADER > MOST_REPLY)
		return 0;
	parse_reply(sent, data, data + HEADER, size - HEADER, &reply);
	if (reply.result > NO_RESULT || reply.prompts > MOST_PROMPTS)
		abort();
	if (reply.result == NO_RESULT && (reply.handle == NULL || reply.prompts == 0))
		abort();
	for (unsigned i = 0; i < reply.prompts; i++) {
		const uint8_t *text = (const uint8_t *)reply.texts[i];
		if (text < data || text + strlen(reply.texts[i]) >= data + size)
			abort();
		if (reply.styles[i] < ECHO_OFF || reply.styles[i] > INFO_TEXT)
			abort();
	}
	return 0;
}
