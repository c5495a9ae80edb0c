/* SPDX-License-Identifier: MIT */
/*
 * FM_KEEP: the bytes that a process had written to a mapping when it was killed are in the file,
 * although the process called no sync. A child writes, and reports each write by a pipe.
 *
 * Seen to fail without FM_KEEP in begin() (some hundred words are missing), and with an
 * is_left() that ignores PG_WRITEBACK.
 */
#include "support.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES (4 * MIB)
#define WORDS (BYTES / 8)
#define THREADS 3

struct written {
	uint64_t word, value;
};

static uint64_t model[WORDS], last[THREADS];
static const char *path;
static int pipe_fd[2];
static uint64_t *words;

static fm_mm *begin(uint32_t trap)
{
	struct fm_mm_options mm_options = {
		.size = sizeof(mm_options), .budget_bytes = MIB, .flags = FM_KEEP, .trap = trap};
	struct fm_file_options options = {.size = sizeof(options),
					  .flags = FM_FILE_WRITE | FM_FILE_CREATE};
	struct fm_map_options map_options = {.size = sizeof(map_options), .flags = FM_MAP_WRITE};
	fm_file *file;
	fm_mm *mm;
	void *addr;

	CHECK_OK(fm_mm_create(&mm_options, &mm));
	CHECK_OK(fm_file_open(mm, path, &options, &file));
	CHECK_OK(fm_truncate(file, BYTES));
	CHECK_OK(fm_map(file, 0, BYTES, &map_options, &addr));
	words = addr;
	return mm;
}

/* Thread n writes the words n, n + THREADS, and so on. The thread reports each word after it has
 * written the word. */
static void *writer(void *arg)
{
	uint64_t n = (uint64_t)(uintptr_t)arg, random = n * 77 + 1;

	for (uint64_t value = 1;; value++) {
		random = random * 6364136223846793005ull + 1442695040888963407ull;
		struct written w = {.word = (random >> 33) % (WORDS / THREADS) * THREADS + n, .value = value};
		words[w.word] = value;
		if (write(pipe_fd[1], &w, sizeof(w)) != (ssize_t)sizeof(w))
			return NULL;
	}
}

static pid_t child_begins(void (*body)(void))
{
	CHECK_EQ(pipe2(pipe_fd, O_CLOEXEC), 0);
	memset(model, 0, sizeof(model));
	memset(last, 0, sizeof(last));
	pid_t child = fork();
	CHECK(child >= 0);
	if (!child) {
		support_no_core();
		signal(SIGPIPE, SIG_IGN);
		close(pipe_fd[0]);
		body();
		_exit(0);
	}
	close(pipe_fd[1]);
	return child;
}

/* Put the reported words into the model, and kill the child after `most` words. Then wait until the
 * child's keeper has ended. */
static void listen(pid_t child, uint64_t most)
{
	struct written w;
	uint64_t count = 0;

	while (read(pipe_fd[0], &w, sizeof(w)) == (ssize_t)sizeof(w)) {
		CHECK(w.word < WORDS);
		model[w.word] = w.value;
		last[w.word % THREADS] = w.value;
		if (++count == most)
			CHECK_EQ(kill(child, SIGKILL), 0);
	}
	close(pipe_fd[0]);
	CHECK_EQ(waitpid(child, NULL, 0), child);
	CHECK_OK(fm_keeper_wait(path, 20000 * MS_NS * support_slower()));
}

/* Compare the file with the model. Each thread may have written one word more than it reported. */
static void compare(void)
{
	static uint64_t got[WORDS];
	unsigned untold[THREADS] = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(pread(fd, got, BYTES, 0), (ssize_t)BYTES);
	close(fd);
	for (uint64_t i = 0; i < WORDS; i++) {
		if (got[i] == model[i])
			continue;
		CHECK_EQ(got[i], last[i % THREADS] + 1);
		CHECK_EQ(untold[i % THREADS]++, 0u);
	}
}

static uint32_t trap;

static void writes(void)
{
	pthread_t thread[THREADS];

	begin(trap);
	for (uintptr_t i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, writer, (void *)i), 0);
	pthread_join(thread[0], NULL);
}

static void test_killed(void)
{
	for (unsigned round = 0; round < 6; round++) {
		trap = round % 2 ? FM_TRAP_THREAD : FM_TRAP_INLINE;
		path = support_path();
		pid_t child = child_begins(writes);
		listen(child, 400 + 500 * round);
		compare();
		unlink(path);
	}
}

static void write_some(void)
{
	struct written w = {.value = 1};

	begin(FM_TRAP_INLINE);
	for (w.word = 0; w.word < WORDS; w.word += 601 * THREADS, w.value++) {
		words[w.word] = w.value;
		CHECK_EQ(write(pipe_fd[1], &w, sizeof(w)), (ssize_t)sizeof(w));
	}
}

static void leaves(void)
{
	write_some();
	_exit(0);
}

static void dies(void)
{
	write_some();
	raise(SIGABRT);
}

static void becomes_another(void)
{
	write_some();
	execl("/bin/true", "true", (char *)NULL);
}

static void test_other_ends(void)
{
	void (*const body[])(void) = {leaves, dies, becomes_another};

	for (size_t i = 0; i < sizeof(body) / sizeof(body[0]); i++) {
		path = support_path();
		listen(child_begins(body[i]), UINT64_MAX);
		compare();
		unlink(path);
	}
}

/* The keeper ends with its mm, and a wait() of the program never sees the keeper. */
static void destroys(void)
{
	fm_mm *mm = begin(FM_TRAP_INLINE);
	words[5] = 7;
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
	CHECK_EQ(errno, ECHILD);
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(waitpid(-1, NULL, __WALL | WNOHANG), -1);
}

static void test_destroyed(void)
{
	path = support_path();
	listen(child_begins(destroys), UINT64_MAX);
	model[5] = 7;
	compare();
	unlink(path);
}

static void test_only_local_files(void)
{
	struct fm_mm_options mm_options = {
		.size = sizeof(mm_options), .budget_bytes = MIB, .flags = FM_KEEP};
	struct fm_file_options options = {.size = sizeof(options), .flags = FM_FILE_WRITE};
	fm_file *file;
	fm_mm *mm;

	CHECK_OK(fm_mm_create(&mm_options, &mm));
	CHECK_EQ(fm_file_open(mm, "memory:1M", &options, &file), -EOPNOTSUPP);
	CHECK_OK(fm_mm_destroy(mm));
}

static void test(void)
{
	test_killed();
	test_other_ends();
	test_destroyed();
	test_only_local_files();
}

int main(void)
{
	return support_run(test);
}
