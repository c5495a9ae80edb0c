/* SPDX-License-Identifier: MIT */
/*
 * What the verbs ask of the machine they run on: cgroup hierarchies, disks, files under /sys.
 * May call: libc, the kernel.
 */
#ifndef FILEMAP_MACHINE_H
#define FILEMAP_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* 0 or a negative errno. */
int machine_write_text(const char *path, const char *text);
/* Where the version 1 hierarchy of a controller is mounted. */
bool machine_find_hierarchy(const char *controller, char *path, size_t len);
/* The number of the whole disk that holds `path`: limits are not for partitions. 0 or a negative
 * errno. */
int machine_find_disk(const char *path, unsigned *ret_major, unsigned *ret_minor);

#endif
