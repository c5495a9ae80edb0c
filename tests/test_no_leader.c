/* SPDX-License-Identifier: MIT */
/*
 * The main thread has ended by pthread_exit(), and other threads go on (HAZARDS.md E4). /proc/self
 * and getpid() name the main thread, which then has neither memory nor descriptors. fm_punch() and
 * a growing fm_truncate() must still copy out of the view the pages that the kernel does not move
 * (COPY). `filemap stat` must still find the statistics of the process. The test also runs with a
 * seccomp filter that forbids process_vm_readv().
 */
#include "write_support.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stats/stats.h"

#define PAGES 16u

static const char *path;

static void forbid_readv(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void wait_for_leader(void)
{
	char name[64], text[512];
	snprintf(name, sizeof(name), "/proc/%d/stat", (int)getpid());
	for (int i = 0; i < 10000; i++) {
		FILE *stat = fopen(name, "re");
		CHECK(stat && fgets(text, sizeof(text), stat));
		fclose(stat);
		if (strstr(text, ") Z "))
			return;
		usleep(1000);
	}
	CHECK_FAIL("the main thread does not end");
}

static void write_and_change(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	fm_file *file = write_open(mm, path);
	char *addr = write_map(file, 0, PAGES * PAGE);
	char bytes[PAGE];

	memset(bytes, 'D', sizeof(bytes));
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_OK(write_to(mm, addr + i * PAGE, bytes, PAGE));
	CHECK_OK(fm_punch(file, 4 * PAGE + 100, 100));
	CHECK_OK(fm_truncate(file, PAGES * PAGE + 100));
	CHECK_OK(fm_sync(mm, addr, PAGES * PAGE, 0));
	CHECK_EQ(support_stats(mm).dirty_lost, 0);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
}

static void look_from_outside(void)
{
	fm_mm *mm = support_mm(4 * MIB);
	static struct stats_page page;
	int pid = (int)getpid(), status, child = fork();

	if (!child)
		_exit(stats_read_process(pid, 0, &page) ? 1 : 0);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
	CHECK_OK(fm_mm_destroy(mm));
}

static void *without_leader(void *arg)
{
	wait_for_leader();
	if (arg)
		forbid_readv();
	write_and_change();
	if (!arg)
		look_from_outside();
	_exit(0);
}

static void run(bool forbidden)
{
	int status, child = fork();

	if (!child) {
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, without_leader, forbidden ? &status : NULL), 0);
		pthread_exit(NULL);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	if (WIFSIGNALED(status) || WEXITSTATUS(status))
		CHECK_FAIL("without its main thread%s: status %#x",
			   forbidden ? " and process_vm_readv()" : "", status);

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < PAGES; i++) {
		char byte = 0;
		CHECK_EQ(pread(fd, &byte, 1, (off_t)(i * PAGE)), 1);
		CHECK_EQ(byte, 'D');
	}
	close(fd);
}

int main(void)
{
	path = support_path();
	for (int forbidden = 0; forbidden < 2; forbidden++) {
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		CHECK(fd >= 0 && ftruncate(fd, PAGES * PAGE) == 0);
		close(fd);
		run(forbidden);
	}
	return 0;
}
