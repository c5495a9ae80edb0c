/* SPDX-License-Identifier: MIT */
/* A small JSON writer. The writer places the commas and escapes the text. */
#include "command/tool.h"

#include <math.h>

/* Return the length of the UTF-8 character at `at`, or 0 if the bytes are not a character. */
static size_t utf8_bytes(const unsigned char *at)
{
	unsigned char c = at[0];
	size_t count = c < 0x80                ? 1
		       : c >= 0xc2 && c < 0xe0 ? 2
		       : (c & 0xf0) == 0xe0    ? 3
		       : c >= 0xf0 && c < 0xf5 ? 4
					       : 0;

	for (size_t i = 1; i < count; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] >= 0xa0) ||
	    (c == 0xf0 && at[1] < 0x90) || (c == 0xf4 && at[1] >= 0x90))
		return 0; /* an overlong form, half of a surrogate pair, or past U+10FFFF */
	return count;
}

/* Print a string. Names of files and processes may hold any bytes. Each byte that belongs to no
 * UTF-8 character is printed as U+FFFD. */
static void print_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		size_t bytes = utf8_bytes((const unsigned char *)text);

		if (bytes > 1) {
			fwrite(text, 1, bytes, out);
			text += bytes - 1;
			continue;
		}
		if (!bytes) {
			fputs("\\ufffd", out);
			continue;
		}
		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\u%04x", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static void begin(struct tool_json *json, const char *key)
{
	if (json->comma)
		fputc(',', json->out);
	json->comma = true;
	if (key) {
		print_text(json->out, key);
		fputc(':', json->out);
	}
}

void json_open(struct tool_json *json, const char *key, char bracket)
{
	begin(json, key);
	fputc(bracket, json->out);
	json->comma = false;
}

void json_close(struct tool_json *json, char bracket)
{
	fputc(bracket, json->out);
	json->comma = true;
}

void json_text(struct tool_json *json, const char *key, const char *value)
{
	begin(json, key);
	print_text(json->out, value);
}

void json_number(struct tool_json *json, const char *key, uint64_t value)
{
	begin(json, key);
	fprintf(json->out, "%llu", (unsigned long long)value);
}

void json_real(struct tool_json *json, const char *key, double value)
{
	begin(json, key);
	fprintf(json->out, "%.6g", isfinite(value) ? value : 0.0);
}

void json_bool(struct tool_json *json, const char *key, bool value)
{
	begin(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct tool_json *json, const char *key)
{
	begin(json, key);
	fputs("null", json->out);
}
