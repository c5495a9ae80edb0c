/* SPDX-License-Identifier: MIT */
/*
 * The processes that share the work: jobs.c starts them and waits for them. The processes leave
 * their results, and the first failure, in shared memory.
 */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

bool jobs_stop(void)
{
	return __atomic_load_n(&sim_failure->failed, __ATOMIC_RELAXED);
}

void *jobs_shared(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED) {
		perror("filemap-sim: cannot map shared memory");
		exit(1);
	}
	return mem;
}

static pid_t start(void (*share)(uint64_t j), uint64_t j)
{
	pid_t pid = fork();
	if (pid < 0) {
		perror("filemap-sim: cannot start a process");
		exit(1);
	}
	if (pid > 0)
		return pid;
	sim_trace_install_handlers();
	share(j);
	_exit(fflush(stdout) ? 1 : 0);
}

/* Return whether an ended process did all its work. */
static bool ended_well(int status)
{
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 0;
	if (WIFSIGNALED(status) && !jobs_stop())
		fprintf(stderr, "filemap-sim: signal %d ended a process\n", WTERMSIG(status));
	return false;
}

int jobs_run(uint64_t jobs, void (*share)(uint64_t j), void (*progress)(void))
{
	bool watch = progress && isatty(2);
	int bad = 0, status;
	fflush(stdout);
	for (uint64_t j = 0; j < jobs; j++)
		start(share, j);
	for (pid_t pid; (pid = waitpid(-1, &status, watch ? WNOHANG : 0)) >= 0;) {
		if (pid > 0) {
			bad |= !ended_well(status);
			continue;
		}
		progress();
		nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
	}
	if (watch)
		fputs("\r\033[K", stderr);
	return bad;
}
