/* SPDX-License-Identifier: MIT */
/*
 * HAZARDS.md B4: the kernel holds its lock for the whole range of a WRITEPROTECT, a COPY and an
 * MADV_DONTNEED. The library splits its calls: no call covers more than 2 MiB, whatever the caller
 * asks.
 *
 * A seccomp filter traps each such ioctl of this thread. The SIGSYS handler notes the length and
 * makes the call. The filter refuses a longer madvise() with E2BIG.
 *
 * tests/HAZARDS.md names the breaks that this test was seen to fail with.
 */
#include "hazard_support.h"
#include "os/syscall.h"
#include "trap/internal.h"
#include "trap/uffd_abi.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <ucontext.h>

#define LEN   (16 * MIB)
#define CHUNK (2 * MIB)
/* The sixth argument of a call that the filter lets through. */
#define OURS  0x4711

static volatile sig_atomic_t calls;
static volatile uint64_t longest;

#if defined(__x86_64__)
#define ARG(uc, n) ((uc)->uc_mcontext.gregs[(n) == 0 ? REG_RDI : (n) == 1 ? REG_RSI : REG_RDX])
#define RESULT(uc) ((uc)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define ARG(uc, n) ((uc)->uc_mcontext.regs[n])
#define RESULT(uc) ((uc)->uc_mcontext.regs[0])
#endif

#ifdef ARG
static void on_sigsys(int signo, siginfo_t *info, void *ucontext)
{
	ucontext_t *uc = ucontext;
	long a = (long)ARG(uc, 0), b = (long)ARG(uc, 1), c = (long)ARG(uc, 2);
	uint64_t len = (unsigned long)b == UFFDIO_COPY ? ((struct uffdio_copy *)c)->len
						       : ((struct uffdio_writeprotect *)c)->range.len;

	(void)signo;
	calls++;
	if (len > longest)
		longest = len;
	RESULT(uc) = os_syscall6(info->si_syscall, a, b, c, 0, 0, OURS);
}

static void watch_calls(void)
{
#define ARG_LOW(n) (offsetof(struct seccomp_data, args) + (n) * sizeof(uint64_t))
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 10),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG_LOW(5)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OURS, 8, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG_LOW(1)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)UFFDIO_COPY, 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)UFFDIO_WRITEPROTECT, 4, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG_LOW(2)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MADV_DONTNEED, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ARG_LOW(1)),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, CHUNK, 2, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | E2BIG),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
	struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

	CHECK_EQ(sigaction(SIGSYS, &action, NULL), 0);
	CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static void in_chunks(const char *what, uint64_t least)
{
	printf("%s: %d calls, the longest %llu KiB\n", what, (int)calls,
	       (unsigned long long)longest / KIB);
	fflush(stdout);
	CHECK_GE((uint64_t)calls, least);
	CHECK_LE(longest, CHUNK);
	calls = 0;
	longest = 0;
}

int main(void)
{
	fm_mm *mm = support_mm(64 * PAGE);
	fm_file *file = support_open(mm, "memory:64M", NULL);
	uint64_t done, view = (uint64_t)(uintptr_t)support_map(file, 0, LEN);
	char *bytes = mmap(NULL, LEN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(bytes != MAP_FAILED);

	watch_calls();
	CHECK_OK(trap_copy(mm->trap, view, (uint64_t)(uintptr_t)bytes, LEN, &done));
	in_chunks("COPY", 1);
	CHECK_LE(done, CHUNK);
	if (mm->trap->has_wp) {
		CHECK_OK(trap_protect(mm->trap, view, LEN));
		in_chunks("WRITEPROTECT", LEN / CHUNK);
	}
	CHECK_OK(trap_discard(mm->trap, view, LEN));
	/* The filter works: a longer madvise() is refused. */
	CHECK_EQ(madvise(bytes, LEN, MADV_DONTNEED), -1);
	munmap(bytes, LEN);
	CHECK_OK(fm_unmap(mm, (void *)(uintptr_t)view, LEN));
	CHECK_OK(fm_file_close(file));
	support_mm_end(mm);
	return 0;
}
#else
int main(void)
{
	SKIP("the arguments of a system call are not known on this architecture");
}
#endif
