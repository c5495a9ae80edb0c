/* SPDX-License-Identifier: MIT */
/*
 * filemap record: runs a program that uses libfilemap, with $FILEMAP_RECORD set to a temporary
 * folder. The library writes a list into the folder for each file that the program opens. When the
 * program has ended, the lists are put together as one file, and the folder is removed.
 */
#include "command/tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_LEN (4 * PATH_MAX + 64)

/* One list: the parts of its name, its header, and the sums of its ranges. */
struct list {
	uint64_t opened_ns, pid, number; /* of the name */
	char name[96];
	char *uri;
	uint64_t ranges, bytes, lost;
};

struct recording {
	const char *out;
	char folder[PATH_MAX];
	struct list *list;
	size_t count;
};

/* ------------------------------------------------------------------ the program */

static volatile sig_atomic_t child_pid;

static void pass_on(int signo)
{
	if (child_pid > 0)
		kill(child_pid, signo);
}

static void in_child(char **argv, const sigset_t *mask)
{
	struct sigaction action = {.sa_handler = SIG_DFL};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGQUIT, &action, NULL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
}

/* Fork and execute the program. Returns the child, or -1 with errno if the program could not be
 * started. */
static pid_t start(char **argv)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, pass = {.sa_handler = pass_on};
	sigset_t passed, mask;
	int said[2], error = 0;

	if (pipe2(said, O_CLOEXEC) < 0)
		return -1;
	sigemptyset(&passed);
	sigaddset(&passed, SIGTERM);
	sigaddset(&passed, SIGHUP);
	sigprocmask(SIG_BLOCK, &passed, &mask); /* until the child is known */
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		in_child(argv, &mask);
		error = errno;
		(void)!write(said[1], &error, sizeof(error));
		_exit(127);
	}
	int fork_error = errno;
	close(said[1]);
	if (pid > 0 && read(said[0], &error, sizeof(error)) > 0) {
		waitpid(pid, NULL, 0);
		pid = -1;
		fork_error = error;
	}
	close(said[0]);
	if (pid > 0) {
		/* The terminal's interrupt reaches the program, too, and the program decides what
		 * to do. */
		sigaction(SIGINT, &ignore, NULL);
		sigaction(SIGQUIT, &ignore, NULL);
		child_pid = pid;
		sigaction(SIGTERM, &pass, NULL);
		sigaction(SIGHUP, &pass, NULL);
	}
	sigprocmask(SIG_SETMASK, &mask, NULL);
	errno = fork_error;
	return pid;
}

/* Wait for the program. Returns its exit status, or 128 plus the number of the signal that killed
 * it. */
static int wait_for(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	child_pid = 0;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* ------------------------------------------------------------------ the lists */

/* Read the lines of a list's header, and add up the list's ranges. */
static bool read_list(const char *path, struct list *list)
{
	char *line = malloc(LINE_LEN);
	FILE *f = fopen(path, "re");
	unsigned long long start, len, value;
	bool good = line && f;

	while (good && fgets(line, LINE_LEN, f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "uri ", 4) == 0 && !list->uri)
			good = (list->uri = strdup(line + 4)) != NULL;
		else if (sscanf(line, "lost %llu", &value) == 1)
			list->lost = value;
		else if (sscanf(line, "%llu %llu", &start, &len) == 2) {
			list->ranges++;
			list->bytes += len;
		}
	}
	if (f)
		fclose(f);
	free(line);
	return good && list->uri;
}

static int by_opening(const void *a, const void *b)
{
	const struct list *x = a, *y = b;
	if (x->opened_ns != y->opened_ns)
		return x->opened_ns < y->opened_ns ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

static bool add_list(struct recording *r, const char *name)
{
	struct list *more = realloc(r->list, (r->count + 1) * sizeof(*more)), *list;
	char path[2 * PATH_MAX];
	unsigned long long opened_ns, pid, number;

	if (!more)
		return false;
	r->list = more;
	list = &r->list[r->count];
	*list = (struct list){0};
	if (sscanf(name, "%llu-%llu-%llu.hotset", &opened_ns, &pid, &number) != 3 ||
	    strlen(name) >= sizeof(list->name))
		return true; /* not the name of a list */
	list->opened_ns = opened_ns;
	list->pid = pid;
	list->number = number;
	strcpy(list->name, name);
	snprintf(path, sizeof(path), "%s/%s", r->folder, name);
	if (read_list(path, list))
		r->count++;
	else
		tool_error(TOOL_FAILED, "record: %s: the list of touches cannot be read; it is left out",
			   path);
	return true;
}

static bool find_lists(struct recording *r)
{
	DIR *dir = opendir(r->folder);
	struct dirent *entry;
	bool good = dir != NULL;

	while (good && (entry = readdir(dir)))
		if (entry->d_name[0] != '.') /* a hidden list is incomplete: its program died */
			good = add_list(r, entry->d_name);
	if (dir)
		closedir(dir);
	if (good && r->count)
		qsort(r->list, r->count, sizeof(*r->list), by_opening);
	return good;
}

static bool append_file(FILE *out, const char *path)
{
	char buf[65536];
	FILE *in = fopen(path, "re");
	size_t n;

	if (!in)
		return false;
	while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
		fwrite(buf, 1, n, out);
	bool good = !ferror(in);
	fclose(in);
	return good;
}

/* Write all lists into one file. The file is replaced as a whole, or stays as it was. */
static bool write_out(const struct recording *r)
{
	char temporary[PATH_MAX + 32], path[2 * PATH_MAX];

	snprintf(temporary, sizeof(temporary), "%s.%d", r->out, (int)getpid());
	FILE *out = fopen(temporary, "wxe");
	if (!out)
		return false;
	bool good = true;
	for (size_t i = 0; i < r->count && good; i++) {
		snprintf(path, sizeof(path), "%s/%s", r->folder, r->list[i].name);
		good = append_file(out, path);
	}
	good &= fflush(out) == 0 && !ferror(out);
	int error = errno;
	fclose(out);
	good = good && rename(temporary, r->out) == 0;
	if (!good) {
		error = errno ? errno : error;
		unlink(temporary);
		errno = error;
	}
	return good;
}

static void clean_up(struct recording *r)
{
	DIR *dir = opendir(r->folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(r->folder);
	for (size_t i = 0; i < r->count; i++)
		free(r->list[i].uri);
	free(r->list);
}

/* ------------------------------------------------------------------ words */

static void tell(const struct recording *r)
{
	char bytes[TOOL_TEXT_LEN], lost[80];

	for (size_t i = 0; i < r->count; i++) {
		const struct list *list = &r->list[i];

		lost[0] = '\0';
		if (list->lost)
			snprintf(lost, sizeof(lost), "; the list is full: %llu more touches are not recorded",
				 (unsigned long long)list->lost);
		tool_clean(list->uri);
		fprintf(stderr, "filemap record: %s: %llu range%s, %s%s\n", list->uri,
			(unsigned long long)list->ranges, list->ranges == 1 ? "" : "s",
			tool_size_text(list->bytes, bytes), lost);
	}
	fprintf(stderr,
		"filemap record: %s: %zu file%s; open with ?hotset=%s, or set FILEMAP_HOTSET=%s\n",
		r->out, r->count, r->count == 1 ? "" : "s", r->out, r->out);
}

static void tell_json(const struct recording *r, int status)
{
	struct tool_json json = {.out = stdout};

	putchar('\n'); /* the program's output may end within a line */
	json_open(&json, NULL, '{');
	json_text(&json, "out", r->out);
	json_number(&json, "exit_status", (uint64_t)status);
	json_open(&json, "files", '[');
	for (size_t i = 0; i < r->count; i++) {
		json_open(&json, NULL, '{');
		json_text(&json, "uri", r->list[i].uri);
		json_number(&json, "pid", r->list[i].pid);
		json_number(&json, "ranges", r->list[i].ranges);
		json_number(&json, "bytes", r->list[i].bytes);
		json_number(&json, "lost", r->list[i].lost);
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_close(&json, '}');
	putchar('\n');
}

/* ------------------------------------------------------------------ the verb */

/* Check the output file now, not after the program has run for an hour. */
static int check_out(const char *out)
{
	char folder[PATH_MAX] = ".";
	const char *slash = strrchr(out, '/');
	struct stat st;

	if (strlen(out) >= PATH_MAX - 32)
		return tool_error(TOOL_FAILED, "record: --out: %s", strerror(ENAMETOOLONG));
	if (!*out)
		return tool_error(TOOL_USAGE, "record: --out is empty: give the name of a file");
	if (slash)
		snprintf(folder, sizeof(folder), "%.*s", slash == out ? 1 : (int)(slash - out), out);
	if (stat(out, &st) == 0 && !S_ISREG(st.st_mode))
		return tool_error(TOOL_FAILED, "record: --out %s: not a regular file", out);
	if (access(folder, W_OK | X_OK) < 0)
		return tool_error(TOOL_FAILED, "record: --out %s: cannot be written: %s", out, strerror(errno));
	return TOOL_OK;
}

static int make_folder(struct recording *r)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(r->folder, sizeof(r->folder), "%s/filemap-record-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(r->folder))
		return tool_error(TOOL_FAILED,
				  "record: %s: %s; set TMPDIR to a folder that can be written",
				  r->folder, strerror(errno));
	/* The program may change its directory, so it gets the absolute path of a relative
	 * TMPDIR. */
	char *whole = realpath(r->folder, NULL);
	if (whole && strlen(whole) < sizeof(r->folder))
		strcpy(r->folder, whole);
	free(whole);
	return TOOL_OK;
}

/* Collect the lists after the program has ended. Returns the program's status, or TOOL_FAILED if
 * the lists could not be read or written. */
static int finish(struct recording *r, int status, bool as_json)
{
	if (!find_lists(r))
		return tool_error(TOOL_FAILED, "record: %s: %s", r->folder, strerror(errno));
	if (r->count && !write_out(r))
		return tool_error(TOOL_FAILED, "record: --out %s: cannot be written: %s", r->out,
				  strerror(errno));
	if (as_json)
		tell_json(r, status);
	else if (r->count)
		tell(r);
	else
		fprintf(stderr,
			"filemap record: the program opened no file with libfilemap; %s is not "
			"written\n",
			r->out);
	return status;
}

int verb_record(int argc, char **argv)
{
	struct recording r = {.out = "filemap.hotset"};
	bool as_json = false;
	const struct tool_option options[] = {
		{.name = "--out",
		 .argument = "FILE",
		 .help = "output file (default filemap.hotset)",
		 .kind = TOOL_TEXT,
		 .value = &r.out},
		{.name = "--json",
		 .help = "print one JSON object at the end, on standard output",
		 .kind = TOOL_FLAG,
		 .value = &as_json},
		{.name = NULL},
	};
	const struct tool_verb verb = {
		.name = "record",
		.operands = "-- PROGRAM [ARGUMENTS]",
		.help = "Run a program that uses libfilemap, and record which ranges of its files the program\n"
			"touches, in the order of the first touch. With hotset=FILE, the library reads these\n"
			"ranges ahead the next time. The exit status is that of the program.\n",
		.options = options,
		.operands_min = 1,
		.operands_max = INT_MAX - 1,
	};
	int count, status;

	if (!tool_parse(&verb, argc, argv, &count, &status))
		return status;
	argv[count + 1] = NULL; /* end the operands, which move down if "--" is removed */
	status = check_out(r.out);
	if (status == TOOL_OK)
		status = make_folder(&r);
	if (status != TOOL_OK)
		return status;
	setenv("FILEMAP_RECORD", r.folder, 1);
	pid_t pid = start(argv + 1);
	if (pid < 0)
		status = tool_error(TOOL_FAILED, "record: %s: cannot be run: %s", argv[1], strerror(errno));
	else
		status = finish(&r, wait_for(pid), as_json);
	clean_up(&r);
	return status;
}
