/* SPDX-License-Identifier: MIT */
/*
 * Errors, texts and progress of the filemap command. See tool.h. The options are in tool_options.c,
 * and JSON is in tool_json.c.
 */
#include "command/tool.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

int tool_error(enum tool_status status, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	tool_clean(line);
	tool_progress_clear();
	fprintf(stderr, "filemap: %s\n", line);
	return status;
}

char *tool_size_text(uint64_t bytes, char text[TOOL_TEXT_LEN])
{
	static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned i = 0;

	while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
		value /= 1024;
		i++;
	}
	if (bytes % (1ull << (10 * i)) == 0)
		snprintf(text, TOOL_TEXT_LEN, "%.0f %s", value, unit[i]);
	else
		snprintf(text, TOOL_TEXT_LEN, "%.1f %s", value, unit[i]);
	if (bytes == 1)
		strcpy(text, "1 byte");
	return text;
}

char *tool_time_text(uint64_t ns, char text[TOOL_TEXT_LEN])
{
	if (ns < 1000)
		snprintf(text, TOOL_TEXT_LEN, "%u ns", (unsigned)ns);
	else if (ns < 1000000)
		snprintf(text, TOOL_TEXT_LEN, "%.1f us", (double)ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, TOOL_TEXT_LEN, "%.1f ms", (double)ns / 1e6);
	else
		snprintf(text, TOOL_TEXT_LEN, "%.2f s", (double)ns / 1e9);
	return text;
}

/* Bytes from 0x80 on are kept, because names may be UTF-8. */
void tool_clean(char *text)
{
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			*text = '?';
}

static bool progress_shown;

bool tool_on_terminal(void)
{
	return isatty(STDERR_FILENO) == 1;
}

void tool_progress(const char *format, ...)
{
	va_list args;

	if (!tool_on_terminal())
		return;
	fputc('\r', stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("\033[K", stderr);
	progress_shown = true;
}

void tool_progress_clear(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}
