/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B19 and B20.
 *
 * B19: the kernel ends a request when the thread that submitted the request exits. Reads that a
 * thread has asked for complete although the thread has exited. A cancel may also come too late:
 * the device then writes after the deadline, and the frame must not belong to another page yet.
 *
 * B20: an alternate stack of AT_MINSIGSTKSZ plus a little is enough for a fault with all its work.
 * The thread-local data of the library is small enough for dlopen().
 *
 * Seen to fail (tests/HAZARDS.md): B19 with a request_abandon() that puts the pins of the request.
 * B20 with 16 KiB of locals in read_inline(), and with OS_THREAD_LOCAL_BYTES of 4096. test_io tests
 * that a request ended by the exit of its thread is submitted again.
 */
#include "hazard_support.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#define FILE_BYTES (4 * MIB)

static struct {
	fm_mm *mm;
	char *map;
	uint64_t bytes;
} shared;

static void *ask(void *arg)
{
	uint64_t page = (uint64_t)(uintptr_t)arg;
	CHECK_EQ(fm_fault_in(shared.mm, shared.map + page * PAGE, PAGE, FM_NOWAIT), -EAGAIN);
	return NULL;
}

static void test_b19_exit(void)
{
	pthread_t thread;
	fm_mm *mm = shared.mm = support_mm(256 * PAGE);
	fm_file *file = support_open(
		mm, support_format("faulty:%s?delay=20ms", support_file(FILE_BYTES, 1)), NULL);
	char *map = shared.map = support_map(file, 0, FILE_BYTES);

	CHECK_OK(fm_advise(mm, map, FILE_BYTES, FM_ADVICE_RANDOM));
	for (uintptr_t i = 0; i < 8; i++) {
		CHECK_EQ(pthread_create(&thread, NULL, ask, (void *)(i * 16)), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	EVENTUALLY(support_stats(mm).requests == 0);
	CHECK_EQ(support_stats(mm).read_errors, 0);
	/* All the reads have completed: no page is read again. */
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(fm_fault_in(mm, map + i * 16 * PAGE, PAGE, FM_NOWAIT));
	CHECK_EQ(support_stats(mm).reads, 8);
	support_expect(mm, map, 0, FILE_BYTES / 4, 1);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

/* A device that a cancel does not reach: the device writes when it is ready. */
static const struct fm_store_ops *memory_ops;
static atomic_bool answers;
static atomic_uint asked;

static int late_read(struct fm_store *store, const struct iovec *iov, int iov_count,
		     uint64_t offset, size_t *ret_done)
{
	asked++;
	while (!answers)
		support_sleep_ms(1);
	return memory_ops->read(store, iov, iov_count, offset, ret_done);
}

static void test_b19_late(void)
{
	const struct fm_file_options deadline = {.size = sizeof(deadline), .deadline_ns = 50 * MS_NS,
						 .readahead_bytes = UINT32_MAX};
	enum { LATE = 3, OTHERS = 8 };
	struct fm_store_ops ops;
	fm_mm *mm = support_mm(16 * PAGE);
	fm_file *file = support_open(mm, "memory:4M?seed=1", &deadline);
	fm_file *other = support_open(mm, support_file(FILE_BYTES, 2), NULL);
	char *map = support_map(file, 0, FILE_BYTES), *other_map = support_map(other, 0, FILE_BYTES);
	unsigned char byte;

	memory_ops = file->store->ops;
	ops = *memory_ops;
	ops.read = late_read;
	file->store->ops = &ops;
	/* A worker reads. */
	file->store->caps = FM_STORE_READ_INLINE;
	answers = false;
	asked = 0;
	/* The I/O thread does some work first. So the I/O thread sees the new operations, in
	 * whatever order the threads saw the stores. */
	CHECK_OK(fm_advise(mm, other_map + FILE_BYTES / 2, PAGE, FM_ADVICE_WILLNEED));
	EVENTUALLY(support_stats(mm).requests == 0);
	/* On a busy machine the deadline may come before a worker begins the read. Such a read can
	 * be cancelled and does not count as a late read. */
	for (unsigned i = 0; i < LATE; ) {
		CHECK_EQ(support_read(mm, map + i * 8 * PAGE, &byte, 1), -ETIMEDOUT);
		EVENTUALLY(asked > i || support_stats(mm).requests == i);
		i = asked;
	}
	/* The device is not done with three frames yet. If these frames were free, the next pages
	 * would get them, and then the late bytes. Pages that are read and not installed keep their
	 * bytes in the frame that was read into. */
	for (unsigned i = 0; i < OTHERS; i += 4) {
		CHECK_OK(fm_advise(mm, other_map + i * PAGE, 4 * PAGE, FM_ADVICE_WILLNEED));
		EVENTUALLY(support_stats(mm).read_bytes == (i + 5) * PAGE && support_stats(mm).requests == LATE);
	}
	CHECK_EQ(support_stats(mm).read_bytes, (OTHERS + 1) * PAGE);
	answers = true;
	EVENTUALLY(support_stats(mm).requests == 0);
	support_expect(mm, other_map, 0, OTHERS * PAGE, 2);
	support_expect(mm, other_map, 0, 64 * PAGE, 2);
	for (unsigned i = 0; i < LATE; i++)
		EVENTUALLY(support_read(mm, map + i * 8 * PAGE, &byte, 1) == 0);
	CHECK_OK(fm_unmap(mm, map, FILE_BYTES));
	CHECK_OK(fm_unmap(mm, other_map, FILE_BYTES));
	CHECK_OK(fm_file_close(file));
	CHECK_OK(fm_file_close(other));
	support_mm_end(mm);
}

/* ------------------------------------------------------------------ B20 */

static void *on_small_stack(void *arg)
{
	size_t need = getauxval(AT_MINSIGSTKSZ), size = (need + 5 * KIB + PAGE - 1) & ~(PAGE - 1);
	char *mem = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mem != MAP_FAILED);
	/* A stack overflow hits this page, and the thread dies. */
	CHECK_EQ(mprotect(mem, PAGE, PROT_NONE), 0);
	stack_t stack = {.ss_sp = mem + PAGE, .ss_size = size};
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	uint64_t start = (uint64_t)(uintptr_t)arg * shared.bytes / 4;
	for (uint64_t at = 0; at < shared.bytes; at += PAGE) {
		uint64_t offset = (start + at) % shared.bytes;
		CHECK_EQ(((const volatile unsigned char *)shared.map)[offset], support_byte(offset, 1));
	}
	stack.ss_flags = SS_DISABLE;
	sigaltstack(&stack, NULL);
	munmap(mem, size + PAGE);
	return NULL;
}

/* Run with little memory, and with enough memory for groups. */
static void test_b20_stack(uint64_t budget, uint64_t bytes)
{
	pthread_t thread[4];

	if (SUPPORT_SANITIZED || test_trap() != FM_TRAP_INLINE)
		return;
	fm_mm *mm = shared.mm = support_mm(budget);
	fm_file *file = support_open(mm, support_file(bytes, 1), NULL);
	shared.map = support_map(file, 0, bytes);
	shared.bytes = bytes;
	for (uintptr_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&thread[i], NULL, on_small_stack, (void *)i), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	CHECK_OK(fm_unmap(mm, shared.map, bytes));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
}

static void test_b20_thread_locals(void)
{
	const char *path = getenv("LIBRARY");
	ElfW(Ehdr) head;
	ElfW(Phdr) part;
	uint64_t bytes = 0;

	if (!path)
		return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_EQ(read(fd, &head, sizeof(head)), sizeof(head));
	for (unsigned i = 0; i < head.e_phnum; i++) {
		CHECK_EQ(pread(fd, &part, sizeof(part), (off_t)(head.e_phoff + i * head.e_phentsize)),
			 sizeof(part));
		if (part.p_type == PT_TLS)
			bytes = part.p_memsz;
	}
	close(fd);
	printf("thread-locals: %llu bytes\n", (unsigned long long)bytes);
	CHECK_GT(bytes, 0);
	CHECK_LE(bytes, 1024);
}

int main(void)
{
	hazard_watch("a read was lost with the thread that asked for it");
	test_b19_exit();
	test_b19_late();
	test_b20_stack(64 * PAGE, FILE_BYTES);
	test_b20_stack(32 * MIB + MIB, 40 * MIB);
	test_b20_thread_locals();
	return 0;
}
