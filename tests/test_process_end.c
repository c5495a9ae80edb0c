/* SPDX-License-Identifier: MIT */
/*
 * Dirty bytes reach the file at every ordinary end of a process: return from main, exit() and
 * quick_exit(), from wherever they are called. This includes bytes that the program writes in its
 * own last handlers, and in a file whose last reference has just gone. A forked child that ends
 * writes nothing. If a store refuses or does not answer for a moment, the end waits. Each end is a
 * program of its own: this program, run again with the name of the end and of the file.
 *
 * Seen to fail:
 *   closed                             writeback_finish() skips files without a reference
 *   return, exit, destructor, opened   no destructor
 *   quick                              no at_quick_exit()
 *   destroy                            exit() does not wait for fm_mm_destroy() in another thread
 *   refuses                            tries with no pauses between them
 */
#include "write_support.h"

#include <sys/wait.h>

#define PAGES 16
#define LEN (PAGES * PAGE)
#define SEED 31
#define WORDS "the last words"

static fm_mm *mm;
static fm_file *file;
static char *addr;
static const char *path;
static bool in_destructor;

static void begin(const char *uri)
{
	mm = support_mm(16 * MIB);
	file = write_open(mm, uri);
	addr = write_map(file, 0, LEN);
}

/* Write to each page. Some of the pages were written to before, and some were not. */
static void last_words(void)
{
	for (unsigned i = 0; i < PAGES; i++)
		memcpy(addr + i * PAGE, WORDS, sizeof(WORDS));
}

static void first_words(void)
{
	for (unsigned i = 0; i < PAGES; i += 2)
		memcpy(addr + i * PAGE, "the first", 9);
}

static __attribute__((destructor(101))) void destructor(void)
{
	if (in_destructor)
		last_words();
}

/* ---- the ends */

static void end_return(void)
{
	atexit(last_words);
	begin(path);
	first_words();
}

static void end_exit(void)
{
	end_return();
	exit(0);
}

static void end_destructor(void)
{
	in_destructor = true;
	begin(path);
	first_words();
}

static void end_quick(void)
{
	at_quick_exit(last_words);
	begin(path);
	first_words();
	quick_exit(0);
}

static void open_and_write(void)
{
	begin(path);
	last_words();
}

/* Everything happens while the process is ending. */
static void end_opened(void)
{
	atexit(open_and_write);
}

static void end_closed(void)
{
	begin(path);
	CHECK_OK(fm_file_close(file));
	last_words();
	CHECK_OK(fm_unmap(mm, addr, LEN));
	exit(0);
}

static enum fm_error_action exit_at_error(void *arg, const struct fm_error *error)
{
	(void)arg;
	(void)error;
	exit(0);
}

static void end_callback(void)
{
	begin(path);
	last_words();
	fm_file *bad = support_open(mm, "faulty:memory:4K?error-every=1", NULL);
	struct fm_map_options options = {.size = sizeof(options), .on_error = exit_at_error};
	void *at = NULL;
	CHECK_OK(fm_map(bad, 0, PAGE, &options, &at));
	(void)*(volatile char *)at;
	CHECK_FAIL("the program went on after a failed read");
}

static void exit_by_signal(int signo)
{
	(void)signo;
	exit(0);
}

static void end_signal(void)
{
	begin(path);
	last_words();
	signal(SIGUSR1, exit_by_signal);
	raise(SIGUSR1);
}

/* A child has the handlers of its parent, and must leave the parent's file alone. */
static void end_fork(void)
{
	int status = 0;

	begin(path);
	last_words();
	fflush(NULL);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child)
		exit(0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	write_expect_file(path, 0, LEN, SEED);
}

static atomic_bool destroys;

static void *destroy(void *arg)
{
	destroys = true;
	fm_mm_destroy(mm);
	return arg;
}

static void end_destroy(void)
{
	pthread_t thread;

	begin(support_format("faulty:%s?write-delay=300ms", path));
	last_words();
	CHECK_EQ(pthread_create(&thread, NULL, destroy, NULL), 0);
	pthread_detach(thread);
	while (!destroys)
		support_sleep_ms(1);
	/* The thread may then be in any part of fm_mm_destroy(). */
	support_sleep_ms(100);
	exit(0);
}

/* Clear the setting in the store itself: fm_file_control() refuses an address space that is being
 * destroyed. */
static void *mend(void *arg)
{
	support_sleep_ms(300);
	CHECK_OK(file->store->ops->control(file->store, arg, "0"));
	return NULL;
}

static void mend_later(char *setting)
{
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, mend, setting), 0);
	pthread_detach(thread);
}

static void end_refuses(void)
{
	begin(support_format("faulty:%s?write-error=ENOSPC&write-error-every=1", path));
	last_words();
	mend_later("write-error-every");
	exit(0);
}

static void end_refuses_destroy(void)
{
	begin(support_format("faulty:%s?write-error=EDQUOT&write-error-every=1", path));
	last_words();
	mend_later("write-error-every");
	CHECK_OK(fm_mm_destroy(mm));
	_exit(0);
}

static void end_stuck(void)
{
	begin(support_format("faulty:%s?write-stuck=1", path));
	last_words();
	mend_later("write-stuck");
	exit(0);
}

/* ---- too late */

static void note(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	if (level == FM_LOG_ERROR && strstr(line, "so late in its exit"))
		CHECK_EQ(write(STDOUT_FILENO, "told\n", 5), 5);
}

static ssize_t write_of_stream(void *cookie, const char *buf, size_t len)
{
	(void)cookie;
	memcpy(addr, buf, len < LEN ? len : LEN);
	return (ssize_t)len;
}

/* The C library flushes its streams after all handlers. The library reports a write to a mapping by
 * such a flush. */
static void end_too_late(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 16 * MIB,
					.trap = test_trap(),
					.install = test_install(),
					.log = note};
	cookie_io_functions_t functions = {.write = write_of_stream};

	CHECK_OK(fm_mm_create(&options, &mm));
	file = write_open(mm, path);
	addr = write_map(file, 0, LEN);
	last_words();
	FILE *stream = fopencookie(NULL, "w", functions);
	CHECK(stream);
	fputs("too late", stream);
}

/* ---- running the ends */

static const struct end {
	const char *name;
	void (*run)(void);
	unsigned rounds;
} ends[] = {
	{"return", end_return, 2},
	{"exit", end_exit, 2},
	{"destructor", end_destructor, 2},
	{"quick", end_quick, 2},
	{"opened", end_opened, 1},
	{"closed", end_closed, 20},
	{"callback", end_callback, 1},
	{"signal", end_signal, 1},
	{"fork", end_fork, 1},
	{"destroy", end_destroy, 2},
	{"refuses", end_refuses, 1},
	{"refuses-destroy", end_refuses_destroy, 1},
	{"stuck", end_stuck, 1},
};

static void run_again(const char *name, const char *output)
{
	int status = 0;

	fflush(NULL);
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		if (output && !freopen(output, "w", stdout))
			_exit(1);
		/* Such an end frees nothing, so a sanitizer would call all memory leaked. */
		const char *asan = getenv("ASAN_OPTIONS");
		setenv("ASAN_OPTIONS", support_format("%s:detect_leaks=0", asan ? asan : ""), 1);
		execl("/proc/self/exe", "test_process_end", name, path, NULL);
		_exit(1);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		exit(77);
	if (status)
		CHECK_FAIL("%s: status 0x%x", name, (unsigned)status);
}

static void expect_words(const char *name)
{
	char got[LEN];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK_EQ(pread(fd, got, LEN, 0), (ssize_t)LEN);
	close(fd);
	for (unsigned i = 0; i < PAGES; i++)
		if (memcmp(got + i * PAGE, WORDS, sizeof(WORDS)))
			CHECK_FAIL("%s: page %u: the last written bytes are lost", name, i);
}

static void expect_told(void)
{
	char text[64] = "";
	const char *output = support_path();

	path = support_file(LEN, SEED);
	run_again("too-late", output);
	FILE *f = fopen(output, "re");
	CHECK(f);
	CHECK(fgets(text, sizeof(text), f));
	fclose(f);
	CHECK_STR(text, "told\n");
}

static int run_end(const char *name)
{
	if (!strcmp(name, "too-late"))
		end_too_late();
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (!strcmp(name, ends[i].name))
			ends[i].run();
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 2) {
		path = argv[2];
		return run_end(argv[1]);
	}
	hazard_watch("a process never ended");
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		for (unsigned round = 0; round < ends[i].rounds; round++) {
			path = support_file(LEN, SEED);
			run_again(ends[i].name, NULL);
			expect_words(ends[i].name);
		}
	/* Under the thread trap the thread that reports races with the end of the process. */
	if (test_trap() == FM_TRAP_INLINE)
		expect_told();
	return 0;
}
