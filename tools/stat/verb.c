/* SPDX-License-Identifier: MIT */
/*
 * filemap stat: shows the stats pages of running processes, read through their descriptors under
 * /proc. The verb takes no lock of these processes and trusts nothing it reads, so the verb works
 * while a program hangs.
 */
#include "stats/stats.h"
#include "command/tool.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct stats_page page; /* too large for a stack */
static struct fm_stats stats;

static void process_name(int pid, char name[32])
{
	char path[32];
	FILE *comm;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	strcpy(name, "?");
	comm = fopen(path, "re");
	if (!comm)
		return;
	if (fgets(name, 32, comm))
		name[strcspn(name, "\n")] = '\0';
	fclose(comm);
	tool_clean(name);
}

/* ------------------------------------------------------------------ one page, whole */

static uint64_t age_ns(void)
{
	struct timespec now;
	uint64_t now_ns;

	clock_gettime(CLOCK_REALTIME, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
	return now_ns > page.created_unix_ns ? now_ns - page.created_unix_ns : 0;
}

static void print_latency(const char *name, const struct fm_histogram_summary *summary)
{
	char p50[TOOL_TEXT_LEN], p99[TOOL_TEXT_LEN], p999[TOOL_TEXT_LEN], max[TOOL_TEXT_LEN];
	int len = (int)strlen(name);

	if (len > 3 && strcmp(name + len - 3, "_ns") == 0)
		len -= 3; /* the times in the table carry their units */
	if (!summary->count) {
		printf("  %-24.*s%12u%12s%12s%12s%12s\n", len, name, 0, "-", "-", "-", "-");
		return;
	}
	printf("  %-24.*s%12llu%12s%12s%12s%12s\n", len, name, (unsigned long long)summary->count,
	       tool_time_text(summary->p50_ns, p50), tool_time_text(summary->p99_ns, p99),
	       tool_time_text(summary->p999_ns, p999), tool_time_text(summary->max_ns, max));
}

static void print_page(int pid, const char *name)
{
	char used[TOOL_TEXT_LEN], budget[TOOL_TEXT_LEN], age[TOOL_TEXT_LEN];

	printf("pid %d (%s): trap %s, install %s, %s of %s in use, for %s\n\n", pid, name, page.trap,
	       page.install, tool_size_text(stats.charged_bytes, used),
	       tool_size_text(stats.budget_bytes, budget), tool_time_text(age_ns(), age));
	printf("  %-24s%12s%12s%12s%12s%12s\n", "latency", "count", "p50", "p99", "p99.9", "max");
#define FM_X(name, help) print_latency(#name, &stats.name);
	FM_HISTOGRAMS(FM_X)
#undef FM_X
	printf("\n  now\n");
#define FM_X(name, help)                                                                           \
	printf("  %-24s%20llu  %s\n", #name, (unsigned long long)stats.name, help);
	FM_GAUGES(FM_X)
	printf("\n  since the start\n");
	FM_COUNTERS(FM_X)
#undef FM_X
	putchar('\n');
}

static void json_summary(struct tool_json *json, const char *key,
			 const struct fm_histogram_summary *summary)
{
	json_open(json, key, '{');
	json_number(json, "count", summary->count);
	json_number(json, "p50_ns", summary->p50_ns);
	json_number(json, "p99_ns", summary->p99_ns);
	json_number(json, "p999_ns", summary->p999_ns);
	json_number(json, "max_ns", summary->max_ns);
	json_close(json, '}');
}

static void json_page(struct tool_json *json, int pid, const char *process)
{
	json_open(json, NULL, '{');
	json_number(json, "pid", (uint64_t)pid);
	json_text(json, "comm", process);
	json_text(json, "trap", page.trap);
	json_text(json, "install", page.install);
#define FM_X(name, help) json_number(json, #name, stats.name);
	FM_GAUGES(FM_X)
	FM_COUNTERS(FM_X)
#undef FM_X
#define FM_X(name, help) json_summary(json, #name, &stats.name);
	FM_HISTOGRAMS(FM_X)
#undef FM_X
	json_close(json, '}');
}

/* ------------------------------------------------------------------ one process, all of them */

static void print_row(int pid, const char *name)
{
	char used[TOOL_TEXT_LEN], budget[TOOL_TEXT_LEN];

	printf("%8d  %-16s%-8s%-8s%12s%12s%14llu\n", pid, name, page.trap, page.install,
	       tool_size_text(stats.budget_bytes, budget), tool_size_text(stats.charged_bytes, used),
	       (unsigned long long)stats.faults);
}

static void print_header(void)
{
	printf("%8s  %-16s%-8s%-8s%12s%12s%14s\n", "PID", "COMMAND", "TRAP", "INSTALL", "BUDGET",
	       "IN USE", "FAULTS");
}

enum form { FORM_ROW, FORM_PAGE, FORM_JSON };

struct show {
	int pid, error;
	char name[32];
	enum form form;
	struct tool_json *json;
	unsigned shown, foreign;
};

static bool show_page(void *arg, int error, struct stats_page *copy)
{
	struct show *show = arg;

	if (error == -EPROTO) {
		show->foreign++;
		return true;
	}
	show->error = error;
	if (error)
		return false;
	page = *copy;
	tool_clean(page.trap);
	tool_clean(page.install);
	stats_collect(&page, &stats);
	if (show->form == FORM_JSON)
		json_page(show->json, show->pid, show->name);
	else if (show->form == FORM_PAGE)
		print_page(show->pid, show->name);
	else
		print_row(show->pid, show->name);
	show->shown++;
	return true;
}

/* Show every page of a process. Returns the number of pages shown. *ret_error tells why there were
 * no more pages. *ret_foreign is the number of pages of another version. */
static unsigned show_process(int pid, enum form form, struct tool_json *json, int *ret_error,
			     unsigned *ret_foreign)
{
	struct show show = {.pid = pid, .form = form, .json = json};
	int error;

	process_name(pid, show.name);
	error = stats_read_all(pid, show_page, &show);
	*ret_error = error ? error : show.error ? show.error : -ENOENT;
	*ret_foreign = show.foreign;
	return show.shown;
}

static int stat_one(const char *text, bool as_json)
{
	struct tool_json json = {.out = stdout};
	uint64_t pid;
	unsigned shown, foreign;
	int error;

	if (!tool_parse_count(text, &pid) || pid == 0 || pid > INT_MAX)
		return tool_error(TOOL_USAGE, "stat: %s: not a process id", text);
	if (as_json)
		json_open(&json, NULL, '[');
	shown = show_process((int)pid, as_json ? FORM_JSON : FORM_PAGE, &json, &error, &foreign);
	if (as_json) {
		json_close(&json, ']');
		putchar('\n');
	}
	if (foreign)
		error = -EPROTO;
	else if (error == -ENOENT && shown)
		return TOOL_OK;
	switch (error) {
	case -ENOENT:
		return tool_error(TOOL_FAILED, "stat: process %s: does not use filemap", text);
	case -ESRCH:
		return tool_error(TOOL_FAILED, "stat: process %s: no such process", text);
	case -EACCES:
	case -EPERM:
		return tool_error(TOOL_FAILED, "stat: process %s: belongs to another user; run filemap "
				  "stat as that user or as root",
				  text);
	case -EPROTO:
		return tool_error(TOOL_FAILED,
				  "stat: process %s: has a stats page of another version of filemap",
				  text);
	default:
		return tool_error(TOOL_FAILED, "stat: process %s: %s", text, strerror(-error));
	}
}

static int stat_all(bool as_json)
{
	struct tool_json json = {.out = stdout};
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	unsigned shown = 0, foreign = 0;
	uint64_t pid;
	int error;

	if (!proc)
		return tool_error(TOOL_FAILED, "stat: /proc: %s", strerror(errno));
	if (as_json)
		json_open(&json, NULL, '[');
	else
		print_header();
	while ((entry = readdir(proc))) {
		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    !tool_parse_count(entry->d_name, &pid) || pid > INT_MAX)
			continue;
		unsigned of_this;
		shown += show_process((int)pid, as_json ? FORM_JSON : FORM_ROW, &json, &error, &of_this);
		foreign += of_this;
	}
	closedir(proc);
	if (as_json) {
		json_close(&json, ']');
		putchar('\n');
	} else if (!shown && !foreign) {
		printf("none of your processes uses filemap at present\n");
	}
	if (foreign)
		return tool_error(
			TOOL_FAILED,
			"stat: %u address space%s of another version of filemap: %s not shown",
			foreign, foreign == 1 ? "" : "s", foreign == 1 ? "is" : "are");
	return TOOL_OK;
}

int verb_stat(int argc, char **argv)
{
	bool as_json = false;
	const struct tool_option options[] = {
		{.name = "--json", .help = "print a JSON list with one object for each address space",
		 .kind = TOOL_FLAG, .value = &as_json},
		{.name = NULL},
	};
	const struct tool_verb verb = {
		.name = "stat",
		.operands = "[PID]",
		.help = "Show the statistics of a process, or list all processes of this user that\n"
			"use filemap. The verb only reads the stats pages of these processes, and takes\n"
			"none of their locks.\n",
		.options = options,
		.operands_max = 1,
	};
	int count, status;

	if (!tool_parse(&verb, argc, argv, &count, &status))
		return status;
	return count ? stat_one(argv[1], as_json) : stat_all(as_json);
}
