/* SPDX-License-Identifier: MIT */
/*
 * The userfaultfd interface of the kernel, for builds where the distribution's header is older.
 * The numbers and layouts are the kernel's documented ABI
 * (Documentation/admin-guide/mm/userfaultfd.rst, ioctl_userfaultfd(2)).
 */
#ifndef FM_TRAP_UFFD_ABI_H
#define FM_TRAP_UFFD_ABI_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <stdint.h>

#define ABI_USER_MODE_ONLY 1
#define ABI_FEATURE_WP (1ull << 0)
#define ABI_FEATURE_SIGBUS (1ull << 7)
#define ABI_FEATURE_THREAD_ID (1ull << 8)
#define ABI_FEATURE_EXACT_ADDRESS (1ull << 11)
#define ABI_FEATURE_POISON (1ull << 14)
#define ABI_FEATURE_MOVE (1ull << 16)

struct abi_move {
	uint64_t dst, src, len, mode;
	int64_t move;
};
struct abi_poison {
	uint64_t start, len, mode;
	int64_t updated;
};
struct abi_continue {
	struct uffdio_range range;
	uint64_t mode;
	int64_t mapped;
};
#define ABI_IOC_NEW _IO(0xAA, 0x00) /* issued on /dev/userfaultfd */
#define ABI_IOC_MOVE _IOWR(0xAA, 0x05, struct abi_move)
#define ABI_IOC_CONTINUE _IOWR(0xAA, 0x07, struct abi_continue)
#define ABI_IOC_POISON _IOWR(0xAA, 0x08, struct abi_poison)

#endif
