/* SPDX-License-Identifier: MIT */
/*
 * The program protects a part of a mapping itself, puts other memory there, or unmaps the part
 * (HAZARDS.md E7). Then the program uses the library. Each way runs with each operation, in a
 * process of its own.
 *
 * Nothing may hang. The library may neither change nor unmap the program's own memory, nor write
 * that memory to the file. Written bytes that are still there must reach the file. If bytes are
 * lost, fm_sync(), fm_file_close() or fm_mm_destroy() must return an error. A line of the log
 * must then name the file and the offset.
 */
#include "write_support.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES   64u
#define WRITTEN 32u
#define FIRST   16u /* the part that is changed */
#define COUNT   8u

enum way { WAY_READ_ONLY, WAY_NO_ACCESS, WAY_ANONYMOUS, WAY_FILE, WAY_UNMAPPED, WAYS };
enum op { OP_FAULT_IN, OP_INVALIDATE, OP_SYNC, OP_END, OP_EVICT, OPS };

static const char *const way_name[] = {"PROT_READ", "PROT_NONE", "anonymous memory", "another file",
				       "munmap()"};
static const char *const op_name[] = {"fm_fault_in()", "fm_invalidate()", "fm_sync()",
				      "unmap, close, destroy", "eviction"};

static const char *path, *other;
static unsigned lines;

static void on_line(void *arg, enum fm_log_level level, const char *line)
{
	(void)arg;
	(void)level;
	if (strstr(line, path) && strstr(line, "from offset "))
		lines++;
}

static fm_mm *make_mm(void)
{
	struct fm_mm_options options = {.size = sizeof(options),
					.budget_bytes = 4 * MIB,
					.trap = test_trap(),
					.install = test_install(),
					.log = on_line};
	fm_mm *mm;
	CHECK_OK(fm_mm_create(&options, &mm));
	return mm;
}

static void fill_file(const char *name, char byte)
{
	char bytes[PAGE];
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	memset(bytes, byte, sizeof(bytes));
	for (unsigned i = 0; i < PAGES; i++)
		CHECK_EQ(write(fd, bytes, PAGE), (ssize_t)PAGE);
	close(fd);
}

static void change_part(char *part, enum way way)
{
	size_t len = COUNT * PAGE;

	if (way == WAY_READ_ONLY || way == WAY_NO_ACCESS) {
		CHECK_EQ(mprotect(part, len, way == WAY_READ_ONLY ? PROT_READ : PROT_NONE), 0);
	} else if (way == WAY_ANONYMOUS) {
		CHECK(mmap(part, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == part);
		memset(part, 'z', len);
	} else if (way == WAY_FILE) {
		int fd = open(other, O_RDONLY | O_CLOEXEC);
		CHECK(mmap(part, len, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == part);
		close(fd);
	} else {
		CHECK_EQ(munmap(part, len), 0);
		/* The program's next mapping may come to lie at the unmapped place. */
		CHECK(mmap(part, PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == part);
		memset(part, 'z', PAGE);
	}
}

static void evict_all(fm_mm *mm)
{
	fm_file *file = support_open(mm, "memory:6M", NULL);
	const unsigned char *addr = support_map(file, 0, 6 * MIB);
	for (size_t i = 0; i < 6 * MIB; i += PAGE)
		CHECK_OK(fm_fault_in(mm, addr + i, 1, 0));
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)addr, 6 * MIB));
	CHECK_OK(fm_file_close(file));
}

static void check_own_memory(const char *part, enum way way)
{
	char byte = way == WAY_FILE ? 'o' : 'z';
	size_t len = way == WAY_UNMAPPED ? PAGE : COUNT * PAGE;

	for (size_t i = 0; way >= WAY_ANONYMOUS && i < len; i += 512)
		if (part[i] != byte)
			CHECK_FAIL("byte %zu of the program's own memory is %d, not %d", i, part[i], byte);
}

#define STATUS_TOLD 10

/* Run one case, in a child. Exit status 0: nothing was lost. STATUS_TOLD: bytes were lost, and
 * the library has reported the loss. */
static void one(enum way way, enum op op)
{
	fm_mm *mm = make_mm();
	fm_file *file = write_open(mm, path);
	char *addr = write_map(file, 0, PAGES * PAGE), *part = addr + FIRST * PAGE;
	bool foreign = way >= WAY_ANONYMOUS;
	int told = 0, err = 0;

	for (unsigned i = 0; i < WRITTEN; i++)
		CHECK_OK(write_to(mm, addr + i * PAGE, "b", 1));
	change_part(part, way);
	if (op == OP_FAULT_IN)
		CHECK_EQ(fm_fault_in(mm, addr, PAGES * PAGE, 0), foreign ? -EFAULT : 0);
	else if (op == OP_INVALIDATE)
		err = fm_invalidate(file, 0, 0);
	else if (op == OP_SYNC)
		told = err = fm_sync(mm, addr, PAGES * PAGE, 0);
	else if (op == OP_EVICT)
		evict_all(mm);
	if (err && (!foreign || (err != -EIO && err != -EBUSY)))
		CHECK_FAIL("%s: %d", op_name[op], err);
	check_own_memory(part, way);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	err = fm_file_close(file);
	told = told ? told : err;
	err = fm_mm_destroy(mm);
	told = told ? told : err;
	check_own_memory(part, way);
	if (told && told != -EIO)
		CHECK_FAIL("the call returned %d", told);
	if (!lines != !told)
		CHECK_FAIL("the error is %d, and %u lines in the log name the file and the offset", told, lines);
	_exit(told ? STATUS_TOLD : 0);
}

/* Count the pages of the file that have lost what was written. */
static unsigned check_file(enum way way)
{
	unsigned old = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < PAGES; i++) {
		bool may_be_old = i >= WRITTEN || (way >= WAY_ANONYMOUS && i >= FIRST && i < FIRST + COUNT);
		char byte = 0;
		CHECK_EQ(pread(fd, &byte, 1, (off_t)(i * PAGE)), 1);
		if (byte != 'b' && !(byte == 'a' && may_be_old))
			CHECK_FAIL("page %u of the file has %d", i, byte);
		old += i < WRITTEN && byte == 'a';
	}
	close(fd);
	return old;
}

static void each_way_and_op(void)
{
	for (int way = 0; way < WAYS; way++)
		for (int op = 0; op < OPS; op++) {
			int status;
			fill_file(path, 'a');
			pid_t child = fork();
			if (!child) {
				alarm(60);
				one((enum way)way, (enum op)op);
			}
			CHECK_EQ(waitpid(child, &status, 0), child);
			if (WIFSIGNALED(status) || (WEXITSTATUS(status) && WEXITSTATUS(status) != STATUS_TOLD))
				CHECK_FAIL("%s, then %s: status %#x", way_name[way], op_name[op], status);
			/* Usually all pages of the part are lost, unless the library wrote some
			 * of the pages before. */
			unsigned old = check_file((enum way)way);
			if ((old != 0) != (status != 0))
				CHECK_FAIL("%s, then %s: %u pages are lost, and the status is %#x",
					   way_name[way], op_name[op], old, status);
		}
}

/* ------------------------------------------------------------------ a SIGBUS handler */

static volatile unsigned hits;

/* Map an empty page in the place of the bad page, as the handler of a journal does. */
static void on_bus(int signo, siginfo_t *info, void *ucontext)
{
	char *page = (char *)((uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1));
	(void)signo;
	(void)ucontext;
	hits++;
	if (mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		_exit(9);
}

static int byte_at(fm_mm *mm, const char *addr)
{
	if (test_trap() == FM_TRAP_CALL)
		CHECK_OK(fm_fault_in(mm, addr, 1, 0));
	return *(const volatile char *)addr;
}

static void repaired_by_handler(void)
{
	char uri[PATH_MAX + 64];
	fm_mm *mm = make_mm();

	fill_file(path, 'a');
	snprintf(uri, sizeof(uri), "faulty:%s?error-at=%llu", path, 10 * PAGE);
	struct fm_file_options options = {.size = sizeof(options), .readahead_bytes = UINT32_MAX};
	fm_file *file = support_open(mm, uri, &options);
	char *addr = support_map(file, 0, PAGES * PAGE), *keep = support_map(file, 0, PAGE);
	CHECK_EQ(byte_at(mm, addr + 9 * PAGE), 'a');
	CHECK_EQ(*(volatile char *)(addr + 10 * PAGE), 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(fm_file_control(file, "error-at=none"));
	CHECK_EQ(*(volatile char *)(addr + 10 * PAGE), 0);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));

	/* Mapped again, the page has the file's bytes. The program's page stays the program's. */
	char *again = support_map(file, 0, PAGES * PAGE);
	CHECK(again != addr);
	CHECK_EQ(byte_at(mm, again + 10 * PAGE), 'a');
	CHECK_EQ(byte_at(mm, again + 11 * PAGE), 'a');
	CHECK_OK(fm_fault_in(mm, again, PAGES * PAGE, 0));
	CHECK_EQ(*(volatile char *)(addr + 10 * PAGE), 0);
	CHECK_OK(fm_unmap(mm, again, PAGES * PAGE));
	CHECK_OK(fm_unmap(mm, keep, PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(*(volatile char *)(addr + 10 * PAGE), 0);
	CHECK_EQ(munmap(addr + 10 * PAGE, PAGE), 0);
}

/* Another file is mapped over a page of the view, and is too short. The signal is the program's
 * own and comes once, whatever the library knows about that page. */
static void short_file_in_a_view(void)
{
	fm_mm *mm = make_mm();

	fill_file(path, 'a');
	fm_file *file = support_open(mm, path, NULL);
	char *addr = support_map(file, 0, PAGES * PAGE);
	CHECK_EQ(byte_at(mm, addr + 5 * PAGE), 'a');
	int fd = open(other, O_RDONLY | O_CLOEXEC);
	CHECK(mmap(addr + 5 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd,
		   (off_t)(PAGES * PAGE)) == addr + 5 * PAGE);
	close(fd);
	hits = 0;
	CHECK_EQ(*(volatile char *)(addr + 5 * PAGE), 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(fm_unmap(mm, addr, PAGES * PAGE));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_mm_destroy(mm));
	CHECK_EQ(munmap(addr + 5 * PAGE, PAGE), 0);
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};

	sigaction(SIGBUS, &action, NULL);
	path = support_path();
	other = support_path();
	fill_file(other, 'o');
	each_way_and_op();
	repaired_by_handler();
	short_file_in_a_view();
	return 0;
}
